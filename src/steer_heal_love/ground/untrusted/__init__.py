"""The one gate for files from other hands: each kind is read through one function here, and nowhere else.

`toml`, `json_object`, `json_lines`   text: size, UTF-8 (a byte order mark is fine), depth, duplicate keys, numbers
                                      that are finite and of sane size, no control characters, no lone surrogates
`tensors`                             safetensors: the header is checked before a tensor is mapped
`gguf`                                GGUF: every length is checked against the file before it is believed
`shaped`                              a JSON value that is made as it should be, part by part
`inside`                              a path that no symbolic link leads out of its folder

What is wrong with a file is listed at once, in one `UserError`, and nothing of the file is executed or shown raw.
What stands on torch is imported when it is asked for, since that takes seconds.
"""

from steer_heal_love.ground.untrusted.mistakes import known, nearest, refuse, whole_number
from steer_heal_love.ground.untrusted.paths import inside
from steer_heal_love.ground.untrusted.plain import MEGABYTE, read_bytes, read_text
from steer_heal_love.ground.untrusted.shape import NUMBER, shaped
from steer_heal_love.ground.untrusted.tables import Found, json_lines, json_object, json_text, toml

__all__ = [
    "MEGABYTE",
    "NUMBER",
    "Found",
    "inside",
    "json_lines",
    "json_object",
    "json_text",
    "known",
    "nearest",
    "read_bytes",
    "read_text",
    "refuse",
    "shaped",
    "toml",
    "whole_number",
]
