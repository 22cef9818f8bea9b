// One message, four answers, one request each. Whatever a model says is set as textContent, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const turned = { strength: "healed", dose: "steered" };
let models = [];
let sent = "";
let turn = 0;
const asked = {};
const PAUSE = 150; // milliseconds in which a dial may be turned further before a model is asked

function card(model) {
  const article = document.createElement("article");
  const title = document.createElement("h2");
  const what = document.createElement("p");
  const answer = document.createElement("p");
  article.id = model.id;
  title.textContent = model.label;
  what.textContent = model.is;
  what.className = "what";
  answer.className = "answer";
  article.append(title, what, answer);
  return article;
}

function show(who, text, kind) {
  const answer = at(who).querySelector(".answer");
  answer.textContent = text;
  answer.className = "answer " + kind;
}

async function ask(who) {
  const body = { who, message: sent, strength: Number(at("strength").value), dose: Number(at("dose").value),
    seed: Math.trunc(Number(at("seed").value)) };
  const reply = await fetch("answer", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found.text;
}

// A model that is asked again while an older answer is on its way shows the newer one alone.
async function answered(wanted) {
  const mine = ++turn;
  for (const who of wanted) {
    asked[who] = mine;
    show(who, "waiting …", "waiting");
  }
  await new Promise((go) => setTimeout(go, PAUSE));
  for (const who of wanted) {
    if (asked[who] !== mine) continue;
    at("status").textContent = "The " + who + " model is writing.";
    show(who, "writing …", "waiting");
    const [text, kind] = await ask(who).then((found) => [found || "(it says nothing)", "done"], (error) => [error.message, "failed"]);
    if (asked[who] === mine) show(who, text, kind);
  }
  if (turn === mine) at("status").textContent = "";
}

function send(event) {
  if (event) event.preventDefault();
  sent = at("message").value;
  if (sent.trim()) answered(models.map((m) => m.id));
}

function shown() {
  for (const name of Object.keys(turned)) at(name + "-shown").textContent = Number(at(name).value).toFixed(2).replace("-", "−");
}

function dial(name, range, value) {
  [at(name).min, at(name).max] = range;
  at(name).value = value;
  if (Number(at(name).value) !== value) { // it lies between two steps, to one of which the browser has moved it
    at(name).step = "any";
    at(name).value = value;
  }
  at(name).addEventListener("input", shown);
  at(name).addEventListener("change", () => { if (sent) answered([turned[name]]); });
}

async function start() {
  const about = await (await fetch("about")).json();
  models = about.who;
  document.title = about.persona + ": " + about.run;
  at("persona").textContent = about.persona;
  at("axis").textContent = about.axis;
  at("message").maxLength = about.longest;
  at("message").placeholder = about.example;
  at("answers").replaceChildren(...models.map(card));
  at("message").value = about.message;
  at("seed").value = about.dials.seed;
  dial("strength", about.strengths, about.dials.strength);
  dial("dose", about.doses, about.dials.dose);
  shown();
  at("ask").addEventListener("submit", send);
  at("message").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  });
  at("message").focus();
  document.body.dataset.ready = "yes";
}

start();
