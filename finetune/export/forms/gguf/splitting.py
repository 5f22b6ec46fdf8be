"""How a tokenizer cuts text before it merges bytes, by the name that llama.cpp knows it by.

Source: the regular expressions of llama.cpp's src/llama-vocab.cpp, as tokenizers' files write them.
"""

from __future__ import annotations

from typing import Any

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4O = _TEKKEN.replace("+|[^", f"+{_CONTRACTED}|[^").replace(r"*|\p{N}|", rf"*{_CONTRACTED}|\p{{N}}{{1,3}}|")

EXPRESSIONS = {
    _LLAMA3: "llama-bpe",
    _LLAMA3.replace("{1,3}", ""): "qwen2",
    _LLAMA3.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"): (
        "llama-bpe"
    ),
    _TEKKEN: "tekken",
    _GPT4O: "gpt-4o",
}
"""Names of what a tokenizer splits by first where that is one expression."""

WHOLE_WORDS = ("llama-bpe", "tekken")
"""Names by which llama.cpp takes a word that is a token as it is, without its merges."""


def splitting_name(cuts: dict[str, Any] | None, ignores_merges: bool) -> str | None:
    """Name what the `pre_tokenizer` of a byte-level tokenizer's file does; None: llama.cpp has no name for it.

    ``ignores_merges`` tells whether a word that is a token needs no merges.
    """
    steps = [cuts] if cuts and cuts["type"] != "Sequence" else list((cuts or {}).get("pretokenizers", []))
    *before, last = steps or [{"type": "none"}]
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        return None
    found = _named(before, last.get("use_regex", True))
    return found if found and (found in WHOLE_WORDS) == ignores_merges else None


def _named(before: list[dict[str, Any]], words: bool) -> str | None:
    """Name what happens before bytes; ``words``: these are cut into GPT-2's words then."""
    if words:
        if not before:
            return "gpt-2"
        digits = len(before) == 1 and before[0]["type"] == "Digits" and before[0]["individual_digits"]
        return "smollm" if digits else None
    if len(before) != 1 or before[0]["type"] != "Split" or before[0]["behavior"] != "Isolated" or before[0]["invert"]:
        return None
    return EXPRESSIONS.get(before[0]["pattern"].get("Regex", ""))
