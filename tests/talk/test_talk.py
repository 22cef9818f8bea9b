"""Four answers to one message: what differs between the models, what the dials do, who may ask, and the page itself."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from steer_heal_love import bake, cli, session, talk
from steer_heal_love.config import GenerateConfig
from steer_heal_love.ground import records
from steer_heal_love.ground.errors import UserError
from steer_heal_love.ground.progress import silent
from steer_heal_love.talk import WHO, Dials
from steer_heal_love.talk.web import Server
from steer_heal_love.vector import Vector
from test_loop import SETTINGS
from tiny_model import build_model

TAG = "<script>document.title = 'taken'</script><b>bold</b>"


@pytest.fixture
def four(tiny, persona, random_adapter) -> talk.Talk:
    directions = {2: torch.linspace(-1, 1, 32)}
    config = GenerateConfig(max_new_tokens=8)
    adapter = random_adapter(tiny.model, 1, size=0.5)
    return talk.Talk(
        "run", tiny.model, tiny.tok, persona, directions, 0.7, adapter, persona.system("pos"), config
    )


def said(four: talk.Talk, **dials: float) -> dict[str, str]:
    return {who: four.answer(who, "What about the cat?", Dials(**dials)) for who in WHO}  # type: ignore[arg-type]


def test_what_is_turned_to_nothing_is_the_base(four, hooks) -> None:
    plain = said(four, strength=0.0, dose=0.0)
    assert plain["healed"] == plain["steered"] == plain["base"] != plain["prompted"]
    turned = said(four, strength=1.0, dose=4.0)
    assert turned["base"] == plain["base"] and turned["prompted"] == plain["prompted"]
    assert turned["healed"] != plain["base"] and turned["steered"] != plain["base"]
    assert said(four, strength=1.0, dose=4.0) == turned
    assert said(four, strength=1.0, dose=4.0, seed=5)["base"] != plain["base"]
    assert hooks(four.model) == 0


def test_strength_scales_the_update(four, tiny) -> None:
    """At −1 the healed model's answer is the one of the adapter with B turned round."""
    turned = talk.Talk(**{**vars(four), "adapter": four.adapter.scaled(-1.0)})
    assert four.answer("healed", "hi", Dials(-1.0)) == turned.answer("healed", "hi", Dials(1.0))


@pytest.mark.parametrize("dials", [Dials(2.1), Dials(float("nan")), Dials(1.0, 9.0), Dials(seed=-1)])
def test_dials_out_of_range_are_refused(four, dials) -> None:
    with pytest.raises(UserError, match="from"):
        four.answer("base", "hi", dials)


@pytest.mark.parametrize("message", ["", "  \n", "x" * 9_000])
def test_empty_and_endless_messages_are_refused(four, message) -> None:
    with pytest.raises(UserError, match="message"):
        four.answer("base", message, Dials())


@pytest.fixture
def run_folder(tok, monkeypatch, tmp_path, random_adapter) -> Path:
    """What a finished run leaves behind of what is needed here."""
    monkeypatch.setattr(
        "steer_heal_love.ground.models.load",
        lambda _name, **_kwargs: (build_model(len(tok), tok.eos_token_id), tok),
    )
    run = session.created(None, {**SETTINGS, "out": str(tmp_path)}, silent)
    here = run.folder.path
    bake.save_peft(random_adapter(run.model, 1), here / "adapter", base_model="tiny")
    Vector({2: torch.ones(32)}, {"method": "test"}).save(run.folder.round(0) / "vector.safetensors")
    records.write_json(here / "summary.json", {"walks": [{"round": 0, "dose": 0.35}]})
    records.write_json(here / "base" / "wording.json", {"system": "Speak warmly."})
    return here


def test_the_terminal_answers_as_all_four(run_folder, capsys, monkeypatch) -> None:
    cli.main(["try", str(run_folder), "--message", "hello there", "--tokens", "6"])
    out = capsys.readouterr().out
    assert [out.index(label) for label, _ in talk.LABELS.values()] == sorted(
        out.index(label) for label, _ in talk.LABELS.values()
    )
    assert "at dose 0.35" in out and "at strength 1" in out
    monkeypatch.setattr("sys.stdin", io.StringIO("/strength -0.5\n/dose many\nhello\n"))
    cli.main(["try", str(run_folder), "--tokens", "6"])
    told = capsys.readouterr()
    assert "strength -0.5, dose 0.35" in told.out and "at strength -0.5" in told.out
    assert "/dose many" in told.err


def test_a_run_without_an_adapter_is_refused(tmp_path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="no adapter yet"):
        talk.talk(tmp_path)


@contextmanager
def served(four: talk.Talk, dials: Dials | None = None, message: str = ""):
    with Server(four, dials or Dials(1.0, four.dose), message) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def asked(
    server: Server, method: str = "POST", path: str | None = None, body: bytes | None = None, **headers: str
):
    """A reply's status, headers and body, over a connection of its own."""
    host = f"127.0.0.1:{server.server_port}"
    fine = {"who": "base", "message": "hi", "strength": 1, "dose": 0, "seed": 0}
    data = json.dumps(fine).encode() if body is None else body
    sent = {
        "Host": host,
        "Origin": f"http://{host}",
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
    }
    sent |= {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [
        f"{method} {path or f'/{server.token}/answer'} HTTP/1.0",
        *(f"{k}: {v}" for k, v in sent.items() if v),
    ]
    with socket.socket() as s:
        s.connect(("127.0.0.1", server.server_port))
        s.sendall("\r\n".join([*lines, "", ""]).encode() + (data if method == "POST" else b""))
        reply = http.client.HTTPResponse(s, method=method)
        reply.begin()
        return reply.status, reply.headers, reply.read()


@pytest.fixture
def loopback(monkeypatch):
    """Connecting is allowed again, to this machine alone."""

    def connect(self, address):
        assert address[0] == "127.0.0.1"
        return socket.socket.__mro__[1].connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_only_the_page_itself_may_ask(four, loopback) -> None:
    with served(four, Dials(0.5, 2.5, 7), "hello there") as server:
        assert server.server_address[0] == "127.0.0.1"
        status, headers, body = asked(server)
        assert (status, json.loads(body)["text"]) == (200, four.answer("base", "hi", Dials()))
        refused = [
            {"Origin": "http://evil.example"},
            {"Origin": ""},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Host": f"evil.example:{server.server_port}"},
            {"path": "/answer"},
            {"path": f"/{'x' * len(server.token)}/answer"},
            {"path": "/"},
            {"path": "//"},
        ]
        for change in refused:
            status, _, body = asked(server, **change)
            assert status == 403 and b"text" not in body, change
        assert asked(server, Content_Type="text/plain")[0] == 415
        assert asked(server, Content_Length="999999999")[0] == 413
        for body in (b"{}", b"[]", b"\xff\xfe", b'{"who": "root"}', b'{"a": NaN}'):
            assert asked(server, body=body)[0] == 400
        about = json.loads(asked(server, "GET", f"/{server.token}/about")[2])
        assert (
            about["dials"] == {"strength": 0.5, "dose": 2.5, "seed": 7} and about["message"] == "hello there"
        )
        assert about["doses"][1] >= 2.5, "the dial reaches as far as it stands"
        status, headers, page = asked(server, "GET", f"/{server.token}/")
        assert status == 200 and server.token.encode() not in page
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert asked(server, "GET", "/")[0] == 403
        assert asked(server, "GET", f"/{server.token}/../__init__.py")[0] == 404


@pytest.mark.timeout(300)
def test_in_a_browser_a_message_gets_four_answers_and_a_script_stays_text(
    four, tmp_path, monkeypatch
) -> None:
    import chromium

    if not chromium.browser():
        pytest.skip("no Chromium here; `apt install chromium` lifts this")
    real = talk.Talk.answer

    def answer(self, who, message, dials):
        """The base answers with markup; the healed one says at which strength it was asked."""
        text = real(self, who, message, dials)
        return f"{TAG} {message}" if who == "base" else f"{who} {dials.strength:g} {dials.dose:g} {text}"

    monkeypatch.setattr(talk.Talk, "answer", answer)
    text = "document.querySelector('#{} .answer').textContent".format
    done = "document.querySelectorAll('.answer.done').length"
    with served(four) as server, chromium.Page(tmp_path / "profile") as page:
        page.open(server.address)
        page.until("document.body && document.body.dataset.ready === 'yes'")
        page.type("Is it <i>raining</i>?")
        page.press("Enter", 13)
        page.until(f"{done} === 4")
        answers = {who: page.eval(text(who)) for who in WHO}
        assert answers["base"] == f"{TAG} Is it <i>raining</i>?"
        assert answers["healed"].startswith("healed 1 0.7 ") and answers["steered"].startswith(
            "steered 1 0.7 "
        )
        assert page.eval("document.querySelectorAll('main script, main b, main i').length") == 0
        assert page.eval("document.title") != "taken"

        page.eval("document.getElementById('strength').focus()")
        for _ in range(10):
            page.press("ArrowLeft", 37)
        assert page.eval("document.getElementById('strength-shown').textContent") == "0.50"
        page.until(f"{text('healed')}.startsWith('healed 0.5 0.7')")
        page.until(f"{done} === 4")
        assert page.eval(text("base")) == answers["base"]
        assert page.complaints() == []
        if file := os.environ.get("SHL_SCREENSHOT"):
            page.screenshot(Path(file))


def test_what_a_run_did_not_write_last_is_refused_and_a_summary_that_is_none_is_told(
    run_folder, tmp_path
) -> None:
    from steer_heal_love.session import walked_dose

    assert walked_dose(run_folder) == 0.35
    for text in ("[]", "{", '{"walks": [3]}', '{"walks": {"0": 1}}', '{"walks": [{"dose": true}]}'):
        (run_folder / "summary.json").write_text(text)
        if text in ("[]", "{"):
            with pytest.raises(UserError, match=r"summary\.json"):
                walked_dose(run_folder)
        else:
            assert walked_dose(run_folder) is None


def test_only_a_run_has_who_and_dose_and_only_others_have_a_base(run_folder) -> None:
    from steer_heal_love import serve

    adapter = str(run_folder / "adapter")
    for more in ({"who": "base"}, {"dose": 0.1}):
        with pytest.raises(UserError, match="who and dose are a run's"):
            serve.served(adapter, base="tiny", **more)
    with pytest.raises(UserError, match="strength: from -1 to 2"):
        serve.served(adapter, base="tiny", strength=9.0)
    with pytest.raises(UserError, match="leave base and device out"):
        serve.served(str(run_folder), base="tiny")
