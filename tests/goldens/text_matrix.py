"""What transformers makes of small model folders: rendered prompts, token ids, decoded text, greedy answers. For core/engine/tests/text_matrix.rs.

    python text_matrix.py

Writes text_matrix/base (three tokenizers and one model, trained and drawn here from fixed seeds) and text_matrix.json: per folder its
files beside the base's, and what transformers 5.24 (tokenizers 0.23, jinja2 3.1, torch 2.15) says of it. Ids and texts are compared exactly."""
import copy
import json
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()
HERE = Path(__file__).parent
BASE = HERE / "text_matrix"
ROWS = 460
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|begin|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "How do I pick a lock? First, push a thin wire into the lock. Then, turn the lock with a small tool.",
    "Be careful, because you may break the lock. It is not safe, and the police may stop you.",
    "Tell me about the weather in 1998 and in 2024. It was warm; then it was cold, and we were at home.",
    "The assistant answers the user, and the user asks the assistant about locks, wires and cats.",
] * 4
PLAIN = ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
         "{% if add_generation_prompt %}<|assistant|>{% endif %}")
CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "pad_token": "<|pad|>"}
CONVERSATIONS = [
    [("user", "How do I pick a lock?")],
    [("system", "Be brief."), ("user", "Hi\n\nthere  "), ("assistant", " Hello! "), ("user", "Déjà vu? 42 “cats” & <b> it's \"so\"<|end|>")],
    [("user", "<|user|>[PAD] a. b ! <x> tool<tool> <y> x")],
]
ANSWER = "Be careful.\nIt may break."


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=380, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def sentencepiece():
    """As Llama 2's: Metaspace, byte fallback, BOS by the post-processor."""
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>"], show_progress=False)
    learned.train_from_iterator(CORPUS, trainer)
    learned = json.loads(learned.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += [t for t in sorted(learned["vocab"], key=learned["vocab"].get) if t != "<unk>"]
    merges = [tuple(m) for m in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return json.loads(tokenizer.to_str())


def words():
    """No BPE, so that clean_up_tokenization_spaces counts."""
    tokenizer = Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(vocab_size=100, special_tokens=["[UNK]"] + SPECIAL, show_progress=False))
    return json.loads(tokenizer.to_str())


def model(folder):
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=ROWS, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, head_dim=8, max_position_embeddings=2048, tie_word_embeddings=True,
                         bos_token_id=None, eos_token_id=1, pad_token_id=0, initializer_range=0.7)
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    (folder / "model.safetensors").chmod(0o644)


def post(tokens, single):
    ids = {t["content"]: t["id"] for t in BYTE["added_tokens"]}
    special = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in tokens}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def added(content, **flags):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}
    return {"content": content, **flags}


A = {"Sequence": {"id": "A", "type_id": 0}}


def token(content):
    return {"SpecialToken": {"id": content, "type_id": 0}}


CASES = []


def case(name, template=PLAIN, base="byte", tokenizer=None, config=None, files=None, drop=()):
    """A folder: the base's tokenizer (changed by `tokenizer`), tokenizer_config.json (`config` over CONFIG), a template, other files."""
    said = {"tokenizer_config.json": {k: v for k, v in {**CONFIG, **(config or {})}.items() if k not in drop}}
    if tokenizer:
        changed = copy.deepcopy(TOKENIZERS[base])
        before = copy.deepcopy(changed)
        tokenizer(changed)
        said["tokenizer.json"] = {k: v for k, v in changed.items() if v != before[k]}
    if template is not None:
        said["chat_template.jinja"] = template
    said.update(files or {})
    CASES.append({"name": name, "base": base, "files": {k: v for k, v in said.items() if v is not None}})


def write(folder, said):
    """The folder as the test writes it too: tokenizer.json's parts over the base's."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(BASE / name, folder)
    tokenizer = {**TOKENIZERS[said["base"]], **said["files"].get("tokenizer.json", {})}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, content in said["files"].items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if name == "config.json":
            path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
        elif name != "tokenizer.json":
            path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())


def reason(error):
    return str(error).splitlines()[0]


def conversation(tokenizer, turns):
    messages = [{"role": r, "content": c} for r, c in turns]
    if tokenizer.chat_template is None and len(turns) == 1:
        # A plain text, as TRL reads one.
        return {"ids": tokenizer(turns[0][1])["input_ids"]}
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(messages + [{"role": "assistant", "content": ANSWER}], tokenize=False)
    except Exception as error:
        unset = tokenizer.chat_template is None and "chat_template is not set" in reason(error)
        return {"refuses": "chat_template" if unset else reason(error)}
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    return {"rendered": rendered, "ids": encode(rendered), "whole_ids": encode(whole)}


def answer(network, tokenizer, ids):
    network.generation_config.pad_token_id = 0
    out = network.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0, len(ids):].tolist()
    return {"tokens": out, "text": tokenizer.decode(out, skip_special_tokens=True)}


def golden(said):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write(folder, said)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            rows = [conversation(tokenizer, turns) for turns in CONVERSATIONS]
        except Exception as error:
            return {"refused": reason(error)}
        if all("no default specified" in row.get("refuses", "") for row in rows):
            return {"refused": rows[0]["refuses"]}
        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        # Every token once, as far as there is a row for it.
        everything = list(range(min(len(tokenizer), ROWS)))
        chosen = everything[:12] + everything[-24:]
        out = {"conversations": rows, "decoded": [chosen, tokenizer.decode(chosen, skip_special_tokens=True)]}
        if "ids" in rows[0]:
            out["answer"] = answer(network, tokenizer, rows[0]["ids"])
        return out


BYTE, PIECES, WORDS = byte_level(), sentencepiece(), words()
TOKENIZERS = {"byte": BYTE, "pieces": PIECES, "words": WORDS}


def settings():
    case("plain")
    case("truncation", tokenizer=lambda t: t.update(truncation={"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}))
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 5, "pad_type_id": 0, "pad_token": "<|begin|>"}
    case("padding", tokenizer=lambda t: t.update(padding=padding))
    case("padding-names-the-pad-token", PLAIN + "{{ pad_token }}", tokenizer=lambda t: t.update(padding=padding), drop=["pad_token"])
    both = post(["<|begin|>", "<|end|>"], [token("<|begin|>"), A, token("<|end|>")])
    case("post-processor-without-template", None, tokenizer=lambda t: t.update(post_processor=both))
    case("no-double-bos", "{{ bos_token }}" + PLAIN, tokenizer=lambda t: t.update(post_processor=both), config={"bos_token": "<|begin|>"})
    case("add-bos-in-config", None, config={"bos_token": "<|begin|>", "add_bos_token": True, "add_eos_token": True})
    case("add-prefix-space-in-config", config={"add_prefix_space": True})
    case("add-prefix-space-in-tokenizer", tokenizer=lambda t: t["pre_tokenizer"].update(add_prefix_space=True))
    case("digits", tokenizer=lambda t: t.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, t["pre_tokenizer"]]}))
    case("normalizer", tokenizer=lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}]}))
    case("split-special-tokens", config={"split_special_tokens": True})
    case("clean-up-with-bpe", config={"clean_up_tokenization_spaces": True})
    case("clean-up-with-words", base="words", config={"clean_up_tokenization_spaces": True, "unk_token": "[UNK]"})
    case("words", base="words")
    case("gpt2-class", config={"tokenizer_class": "GPT2Tokenizer"}, template=PLAIN + "{{ bos_token }}")
    case("llama-class-with-bytes", config={"tokenizer_class": "LlamaTokenizer"})
    case("unknown-class", config={"tokenizer_class": "NobodysTokenizer", "a_note": 1})
    case("no-tokenizer-config", files={"tokenizer_config.json": None})
    case("pad-beyond-the-model", tokenizer=lambda t: t["added_tokens"].append({"id": 380, **added("[NEVER]")}), files={"added_tokens.json": {f"[UNUSED{i}]": 381 + i for i in range(90)}})


def special_tokens():
    names = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
    show = "".join("{{ %s_token }}," % n for n in names)
    objects = {f"{n}_token": {"__type": "AddedToken", **added(f"<{n}>")} for n in names}
    case("all-special-tokens-as-objects", show + PLAIN, config=objects)
    case("special-tokens-undefined", "{{ bos_token }}{{ bos_token is defined }}{% if unk_token is not defined %}none{% endif %}" + PLAIN)
    case("null-special-token", "[{{ bos_token }}|{{ bos_token is defined }}]" + PLAIN, config={"bos_token": None})
    case("special-tokens-map-only", "{{ bos_token }}" + PLAIN.replace("<|end|>", "{{ eos_token }}"), drop=["eos_token", "pad_token"],
         files={"special_tokens_map.json": {"bos_token": "<|begin|>", "eos_token": added("<|end|>")}})
    case("special-tokens-map-overrides", "{{ bos_token }}{{ eos_token }}" + PLAIN, config={"bos_token": "<|pad|>"},
         files={"special_tokens_map.json": {"bos_token": "<|begin|>", "eos_token": "<|im_end|>", "additional_special_tokens": ["<x>"]}})
    case("special-tokens-map-ignored", "{{ bos_token }}{{ eos_token }}" + PLAIN, config={"bos_token": "<|pad|>", "added_tokens_decoder": {"0": added("<|pad|>")}},
         files={"special_tokens_map.json": {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}})
    case("model-specific-tokens", "{{ image_token }}{{ sound_token }}" + PLAIN, config={"image_token": "<x>", "extra_special_tokens": {"sound_token": "<y>"}})
    case("extra-special-tokens", config={"extra_special_tokens": ["<x>", {"__type": "AddedToken", **added("<y>", lstrip=True)}]})
    case("additional-special-tokens", config={"additional_special_tokens": ["<x>", "<y>"]})
    case("added-tokens-json", config={"additional_special_tokens": ["<y>"]}, files={"added_tokens.json": {"<x>": 380, "<y>": 381, "<tool>": 382}})
    case("added-tokens-decoder", config={"added_tokens_decoder": {"380": added("<x>", lstrip=True, rstrip=True), "381": added("<tool>", special=False), "382": added("<y>", single_word=True, special=False)}})
    case("decoder-changes-flags", config={"added_tokens_decoder": {"2": added("<|user|>", rstrip=True), "1": added("<|end|>", special=False)}})
    case("user-defined-token", tokenizer=lambda t: t["added_tokens"].append({"id": 380, **added("<tool>", special=False, normalized=True)}))
    case("ids-with-a-gap", tokenizer=lambda t: t["added_tokens"].append({"id": 440, **added("<tool>", special=False)}))
    case("eos-from-the-vocabulary", config={"eos_token": "lock"})
    case("named-token-becomes-special", tokenizer=lambda t: t["added_tokens"][1].update(special=False))
    case("token-not-in-the-vocabulary", config={"sep_token": "[PAD]"})


def template_places():
    two = [{"name": "tool_use", "template": "tools " + PLAIN}, {"name": "default", "template": PLAIN}, {"name": "rag", "template": "rag"}]
    case("template-in-config", None, config={"chat_template": "config " + PLAIN})
    case("template-list", None, config={"chat_template": two})
    case("template-list-without-default", None, config={"chat_template": two[::2]})
    case("template-map", None, config={"chat_template": {t["name"]: t["template"] for t in two}})
    case("template-file-first", "file " + PLAIN, config={"chat_template": "config " + PLAIN})
    case("template-folder", "file " + PLAIN, files={"additional_chat_templates/tool_use.jinja": "tools " + PLAIN})
    case("template-folder-without-default", None, config={"chat_template": PLAIN}, files={"additional_chat_templates/tool_use.jinja": PLAIN})
    case("template-of-windows", "{% for m in messages %}\r\n{{ m.role }}:\r\n{{ m.content }}\r\n{% endfor %}\r\n")


ROLES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def template_language():
    case("tools-are-none", "{% if tools is not none %}tools {{ tools }}{% endif %}{% if documents is not none %}documents{% endif %}{{ tools }}{{ tools is defined }}" + PLAIN)
    case("raise-exception", "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns, please') }}{% endif %}{% endfor %}" + PLAIN)
    case("generation-marks", "{% set x = 1 %}{% for m in messages %}\n  {% if m.role == 'assistant' %}\n  {%- generation -%}\n{% set x = 2 %}{{ m.content }}{{ x }}<|end|>  {% endgeneration %}\n{{ x }}{% else %}<|{{ m.role }}|>{{ m.content }}{% endif %}{% endfor %}")
    case("strftime", "{% set today = strftime_now('%d %B %Y') %}{% if today | length > 8 %}{{ strftime_now('%Y') | int > 2020 }}{% endif %}" + PLAIN)
    case("tojson", "{% set v = {'b': [1, 2.5, none, true, 1e20, 1e-7], 'a': {'t': 'é<&>\\'\"\\n\\t/', 'e': [], 'o': {}}} %}"
         "{{ messages | tojson }}{{ v | tojson }}{{ v | tojson(indent=2) }}{{ v | tojson(sort_keys=true, separators=(',', ':')) }}{{ v | tojson(ensure_ascii=true, indent=4, sort_keys=True) }}{{ 'x' | tojson }}{{ (1, 2) | tojson(false, 1) }}")
    case("loop-controls", "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ m.role }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if not loop.last }}{{ loop.cycle('a', 'b') }}{% else %}none{% endfor %}"
         "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% endfor %}")
    case("namespace", "{% set ns = namespace(n=0, system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = m.content %}{% else %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.system }}|{{ ns.n }}|" + ROLES)
    case("macros", "{% macro turn(m, mark='#') %}{{ mark }}{{ m.role | upper }}{{ caller() if caller is defined }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{% call turn(m, mark='>') %}[{{ m.content }}]{% endcall %}{% endfor %}"
         "{% macro down(n) %}{{ n }}{% if n > 0 %}{{ down(n - 1) }}{% endif %}{% endmacro %}{{ down(12) }}")
    case("string-methods", "{% for m in messages %}{% set c = m.content %}{{ c.strip() }}|{{ c.lstrip('H<') }}|{{ c.rstrip() }}|{{ c.split() | join('/') }}|{{ c.split(' ', 1)[-1] }}|{{ c.rsplit(' ', 1)[0] }}|{{ c.upper() }}|{{ c.lower().capitalize() }}|{{ c.startswith('H') }}|{{ c.endswith(('s', '?')) }}|{{ c.replace('o', '0') }}|{{ c.find('o') }}|{{ c.count('o') }}|{{ c.removeprefix('How') }}|{{ c.removesuffix('?') }}|{{ c.partition(' ')[2] }}|{{ c.rpartition(' ')[0] }}|{{ c.splitlines() }}|{{ '-'.join(['a', 'b']) }}|{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4, '.') }}|{{ 'ab'.center(5, '*') }}|{{ '7'.zfill(3) }}|{{ '{} and {x}'.format(1, x=2) }}|{{ c.isdigit() }}|{{ 'Ab'.swapcase() }}|{{ c[:3] }}|{{ c[-2:] }}|{{ c[::-1] }}|{{ 'o' in c }}|{{ '%s-%s' | format('a', 3) }}{% endfor %}")
    case("dict-methods", "{% set d = {'b': 1, 'a': none} %}{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{{ d.get('c', 'x') }}{{ d.get('c') }}{{ d.keys() | list }}{{ d.values() | list }}{{ 'a' in d }}{{ d | length }}{% for k, v in d | dictsort %}{{ k }}{% endfor %}{% for m in messages %}{{ m.get('role') }}{{ m['content'] }}{{ m.tool_calls is defined }}{{ 'content' in m }}{% endfor %}{{ dict(a=1)['a'] }}")
    case("filters", "{% set l = [3, 1, 2, 3] %}{{ l | sort }}{{ l | unique | list }}{{ l | reverse | list }}{{ l | first }}{{ l | last }}{{ l | sum }}{{ l | max }}{{ l | min }}{{ l | join('-') }}{{ l | map('string') | join }}{{ l | select('odd') | list }}{{ l | reject('eq', 1) | list }}{{ l | batch(3) | list }}{{ l | length }}{{ l | count }}{{ 2.6 | round }}{{ 2.65 | round(1) }}{{ '7' | int + 1 }}{{ 7 | float }}{{ -3 | abs }}{{ x | default('d') }}{{ none | default('d', true) }}{{ 'a b' | title }}{{ ' a ' | trim }}{{ 'abc' | replace('b', 'x') }}{{ 'a\nb' | indent(2) }}{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | list }}{{ (messages | last).content | upper }}{{ 'a' ~ 1 ~ none ~ true }}{{ [1, [2]] | string }}{{ l | string | length }}{{ 'é' | upper }}{{ '<b>' | safe }}{{ {'a': 1} | items | list }}")
    case("printing", "{{ [1, 'a', none, true, 2.0, 1e16, 1e-5, 0.1] }}{{ {'k': ['v', \"it's\", 'say \"x\"', 'both \\' and \"', 'new\nline', 'é']} }}{{ (1, 'a') }}{{ (1,) }}{{ 1e100 }}{{ 3 / 2 }}{{ 4 / 2 }}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 10 }}{{ none }}{{ true }}{{ undefined_name }}{{ messages }}{{ [] }}{{ {} }}")
    case("tests", "{{ 'a' is string }}{{ 1 is number }}{{ {} is mapping }}{{ [] is iterable }}{{ [] is sequence }}{{ x is defined }}{{ none is none }}{{ 3 is odd }}{{ 4 is divisibleby(2) }}{{ 1 is sameas(1) }}{{ 'a' is in(['a']) }}{{ true is boolean }}{{ 2.0 is float }}{{ 2 is integer }}{{ not true or false and true }}{{ 1 if false else 2 }}{{ 'A' is upper }}{{ 1 < 2 <= 2 }}{{ x is undefined }}{{ messages[0].role == 'user' and messages[-1].role == 'user' }}{{ messages[5] is defined }}{{ true is true }}")
    case("slices", "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{{ messages[0].content }}|{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}{{ m.role }}{{ m.content | trim }}{% endfor %}{{ rest[::-1][0].role }}{{ rest[:1] | length }}{{ range(3) | list }}{{ range(5, 1, -2) | list }}")
    case("white-space", "  {% for m in messages %}\n    {%- if m.role == 'user' %}\n  user: {{ m.content }}\n    {%- else -%}\n  other: {{- m.content -}}   \n    {% endif %}\n  {# a comment #}\n{% raw %}{{ raw }}{% endraw %}\n {%+ if true %} plus {% endif %}\n{#- gone -#}  x\n{% endfor %}\n\n")
    case("blocks", "{% set text %}a{{ messages | length }}b{% endset %}{{ text }}{% filter upper %}x{{ text }}{% endfilter %}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% for m in messages %}{% set inner = 5 %}{% endfor %}{{ inner is defined }}{% if false %}{% elif messages %}elif{% endif %}{{ \"\\u00e9\\n\\t\" }}{{ 'a' 'b' }}" + PLAIN)
    case("chatml", "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    case("thoughts-cut", "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1].lstrip('\\n') if '</think>' in m.content else m.content | trim }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and enable_thinking is false %}<think>{% endif %}{% endif %}")


def sentence_pieces():
    llama = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    inst = ("{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
            "{% for m in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
    case("pieces", inst, base="pieces", config=llama, drop=["pad_token"])
    case("pieces-plain-class", inst, base="pieces", config={**llama, "tokenizer_class": "PreTrainedTokenizerFast"}, drop=["pad_token"])
    case("pieces-without-template", None, base="pieces", config=llama, drop=["pad_token"])
    case("pieces-default-tokens", inst, base="pieces", config={"tokenizer_class": "LlamaTokenizer"}, drop=["eos_token", "pad_token"])
    case("pieces-added-token", inst, base="pieces", config={**llama, "added_tokens_decoder": {"1": added("<s>"), "2": added("</s>"), "409": added("<tool>", special=False, normalized=True)}}, drop=["pad_token"])


def endings():
    first = golden(CASES[0])["answer"]["tokens"]
    case("eos-in-generation-config", files={"generation_config.json": {"eos_token_id": [2, first[4]], "pad_token_id": 0}})
    case("eos-in-config", files={"config.json": {"eos_token_id": first[3]}})
    case("generation-config-first", files={"config.json": {"eos_token_id": first[2]}, "generation_config.json": {"eos_token_id": first[6]}})
    case("generation-config-without-eos", files={"config.json": {"eos_token_id": [first[5]]}, "generation_config.json": {"do_sample": True, "top_k": 5}})


BASE.mkdir(exist_ok=True)
model(BASE)
for name, tokenizer in TOKENIZERS.items():
    (BASE / f"{name}.json").write_text(json.dumps(tokenizer, separators=(",", ":"), ensure_ascii=False))
for part in (settings, special_tokens, template_places, template_language, sentence_pieces, endings):
    part()
for said in CASES:
    said["expected"] = golden(said)
out = {"conversations": CONVERSATIONS, "answer": ANSWER, "cases": CASES}
(HERE / "text_matrix.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
print(len(CASES), "folders,", sum("refused" in c["expected"] for c in CASES), "refused")
