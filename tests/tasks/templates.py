"""The shapes of well-known chat templates, and tokenizers that know their special tokens."""

from tokenizers import AddedToken

from tests import tiny

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %} {{ message['content'] }}"
    "{{ eos_token }}{% else %}[INST] {{ message['content'] }} [/INST]{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
PLAIN = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""No special token at all: nothing ends an answer, and the text that asks for it ends in a space."""

FORGETFUL = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if loop.last or message['role'] == 'user' %}{{ message['content'] }}"
    "{% else %}{{ message['content'].split('</think>')[-1] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Leaves the thinking out of earlier answers."""

DATED = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday is {{ strftime_now('%-d %B %Y') }}.\n"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "<|eot_id|>{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% if message.tool_calls %}{{ message.tool_calls[0].function.name }}"
    "{% for key, value in message.tool_calls[0].function.arguments.items() %} {{ key }}={{ value }}{% endfor %}"
    "{% else %}{{ message.content | trim }}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Prints the date; takes the arguments of a tool call as an object; leaves out what is said beside a call."""

THINKING = (
    "{% set ns = namespace(last=-1) %}{% for message in messages %}{% if message.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    "{% set content = message.content or '' %}{% set thought = message.reasoning_content or '' %}"
    "{% if '</think>' in content %}{% set thought = content.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set content = content.split('</think>')[-1].lstrip() %}{% endif %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ thought.strip() }}\n</think>\n\n{% endif %}{{ content }}"
    '{% for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}"
    "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Puts thoughts, or none between their tags, before answers to the last user, and leaves them out of earlier ones."""

OPENED = (
    "{% for message in messages %}{% if message.role == 'user' %}<|user|>{{ message.content }}"
    "{% else %}<|assistant|>{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n"
    "{% endif %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
"""Asks for an answer by opening the thoughts."""

CALLING = (
    "{{ bos_token }}{% if tools %}[TOOLS]{{ tools | tojson }}[/TOOLS]{% endif %}{% for message in messages %}"
    "{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]"
    "{% elif message.role == 'tool' %}[RESULT]{{ message.tool_call_id }}:{{ message.content }}[/RESULT]"
    "{% elif message.tool_calls %}[CALL]{% for call in message.tool_calls %}{{ call.id }} {{ call.function.name }} "
    "{{ call.function.arguments }}{% endfor %}{{ eos_token }}"
    "{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""No generation prompt, since nothing stands before an answer; takes the arguments of a call as JSON text."""

STRICT = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "{{ '<human>' if message.role == 'user' else '<bot>' }}{{ message.content }}<stop>{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)

HEADLESS = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
"""ChatML that does not know `add_generation_prompt`."""

PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

FRAMED = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% else %}<｜Assistant｜>Answer: {{ message.content }} (end of answer){{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
"""Puts words of its own around every answer."""

TEMPLATES = {
    # name: (template, special tokens, end token, what closes an answer, what stands before it)
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>", "<|im_end|>", ""),
    "llama3": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], "<|eot_id|>", "<|eot_id|>", ""),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], "<eos>", "<end_of_turn>", ""),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"], "<eos>", "<eos>", " "),
    "phi3": (PHI3, ["<|user|>", "<|assistant|>", "<|end|>"], "<eos>", "<|end|>", ""),
}


OTHERS = {
    # name: (template, special tokens, other added tokens, end token, what closes an answer)
    "dated": (DATED, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], [], "<eos>", "<|eot_id|>"),
    "thinking": (
        THINKING,
        ["<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>", "<tool_call>", "</tool_call>"],
        "<|im_end|>",
        "<|im_end|>",
    ),
    "opened": (OPENED, ["<|user|>", "<|assistant|>"], ["<think>", "</think>"], "<eos>", "<eos>"),
    "calling": (
        CALLING,
        ["[INST]", "[/INST]", "[CALL]", "[RESULT]", "[/RESULT]", "[TOOLS]", "[/TOOLS]"],
        [],
        "<eos>",
        "<eos>",
    ),
    "strict": (STRICT, ["<stop>"], ["<human>", "<bot>"], "<stop>", "<stop>"),
    "headless": (HEADLESS, ["<|im_start|>", "<|im_end|>"], [], "<|im_end|>", "<|im_end|>"),
    "parts": (PARTS, ["<|im_start|>", "<|im_end|>"], ["<image>"], "<|im_end|>", "<|im_end|>"),
    "framed": (FRAMED, ["<｜User｜>", "<｜Assistant｜>"], [], "<eos>", "<eos>"),
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], [], "<|im_end|>", "<|im_end|>"),
    "trimming": (LLAMA3, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], [], "<eos>", "<|eot_id|>"),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], [], "<eos>", "<end_of_turn>"),
    "mistral": (MISTRAL, ["[INST]", "[/INST]"], [], "<eos>", "<eos>"),
    "phi3": (PHI3, ["<|user|>", "<|assistant|>", "<|end|>"], [], "<eos>", "<|end|>"),
    "plain": (PLAIN, [], [], "<eos>", "<eos>"),
}
"""Templates that differ in what they read, print, put around answers, and leave out."""


def made(folder, name):
    """A tokenizer with one of `OTHERS`, and the token that closes its answers."""
    template, special, added, end, closing = OTHERS[name]
    return tokenizer_with(folder, template, special, end, added=added), closing


def tokenizer_with(folder, template, special=(), end="<eos>", unnamed=True, added=()):
    """A small tokenizer with that chat template; ``added`` tokens are words like others to who decodes.

    ``unnamed``: its special tokens are marked as special and no more, as in most models since Llama 3; else they are
    also listed among those that the tokenizer calls its own.
    """
    from transformers import AutoTokenizer

    tiny.save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [AddedToken(token, special=True, normalized=False) for token in special]
    if unnamed:
        tokenizer.add_tokens(tokens, special_tokens=True)
    else:
        tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.eos_token = end
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
