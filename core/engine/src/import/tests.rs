use super::*;
use crate::gguf::tests::{Value, Written, floats, write};
use crate::mutants;
use motrain_core::Prompt;

const SPECIAL: [&str; 4] = ["<pad>", "<|stop|>", "<s>", "<user>"];

/// The printable form of each byte, as byte-level tokenizers write it.
fn alphabet() -> Vec<String> {
    let mut letters: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    letters.iter().map(char::to_string).collect()
}

/// A whole model of one layer: hidden size 4, two heads of 2 over one key-value head.
fn file() -> Written {
    let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).into();
    tokens.extend(alphabet());
    tokens.extend(["he".to_owned(), "Ġhe".to_owned()]);
    let vocab = tokens.len() as u64;
    let types = (0..tokens.len())
        .map(|i| {
            if i < 3 {
                3
            } else if i == 3 {
                4
            } else {
                1
            }
        })
        .collect();
    let int = |key: &str, n: u32| (key.to_owned(), Value::U32(n));
    let text = |key: &str, s: &str| (key.to_owned(), Value::Text(s.into()));
    let metadata = vec![
        text("general.architecture", "llama"),
        int("llama.block_count", 1),
        int("llama.context_length", 32),
        int("llama.embedding_length", 4),
        int("llama.feed_forward_length", 6),
        int("llama.attention.head_count", 2),
        int("llama.attention.head_count_kv", 1),
        ("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5)),
        text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "gpt-2"),
        ("tokenizer.ggml.tokens".into(), Value::Texts(tokens)),
        ("tokenizer.ggml.token_type".into(), Value::Ints(types)),
        ("tokenizer.ggml.merges".into(), Value::Texts(vec!["h e".into(), "Ġ he".into()])),
        int("tokenizer.ggml.eos_token_id", 1),
        int("tokenizer.ggml.bos_token_id", 2),
        int("tokenizer.ggml.padding_token_id", 0),
    ];
    let tensor = |name: &str, sizes: &[u64]| {
        let count = sizes.iter().product::<u64>();
        let values: Vec<f32> = (0..count).map(|i| ((i * 37 % 11) as f32 - 5.0) / 8.0).collect();
        (name.to_owned(), sizes.to_vec(), 0, floats(&values))
    };
    let tensors = vec![
        tensor("token_embd.weight", &[4, vocab]),
        tensor("output_norm.weight", &[4]),
        tensor("blk.0.attn_norm.weight", &[4]),
        tensor("blk.0.attn_q.weight", &[4, 4]),
        tensor("blk.0.attn_k.weight", &[4, 2]),
        tensor("blk.0.attn_v.weight", &[4, 2]),
        tensor("blk.0.attn_output.weight", &[4, 4]),
        tensor("blk.0.ffn_norm.weight", &[4]),
        tensor("blk.0.ffn_gate.weight", &[4, 6]),
        tensor("blk.0.ffn_up.weight", &[4, 6]),
        tensor("blk.0.ffn_down.weight", &[6, 4]),
    ];
    Written { metadata, tensors, offset: 0, cut: 0 }
}

impl Written {
    fn with(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self
    }

    fn and_tensor(mut self, name: &str, sizes: &[u64]) -> Self {
        let bytes = floats(&vec![0.5; sizes.iter().product::<u64>() as usize]);
        self.tensors.push((name.into(), sizes.to_vec(), 0, bytes));
        self
    }
}

/// Imports a file and loads what came of it, or says why not.
fn import_bytes(bytes: &[u8]) -> std::result::Result<(Model, crate::tokenizer::Tokenizer), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    let out = folder.path().join("out");
    let read = || -> Result<_> {
        import(&path, &out)?;
        let model = Model::load(&out, Device::Cpu)?;
        let tokenizer = crate::tokenizer::Tokenizer::load(&out, &model.config)?;
        Ok((model, tokenizer))
    };
    read().map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "[tmp]"))
}

fn imported(file: &Written) -> (Model, crate::tokenizer::Tokenizer) {
    import_bytes(&write(file)).unwrap()
}

fn refused(file: &Written) -> String {
    import_bytes(&write(file)).err().unwrap()
}

#[test]
fn what_would_be_lost_is_refused_by_its_name() {
    let u = |n: u32| Value::U32(n);
    let t = |s: &str| Value::Text(s.into());
    let types = |n: usize| Value::Ints(vec![1; n]);
    let all = [
        file().and_tensor("rope_freqs.weight", &[1]),
        file().and_tensor("blk.0.attn_q.bias", &[4]),
        file().and_tensor("blk.0.ffn_gate_exps.weight", &[4, 6, 2]),
        file().and_tensor("blk.1.attn_norm.weight", &[4]),
        file().and_tensor("blk.00.attn_norm.weight", &[4]),
        file().with("llama.rope.scaling.type", t("yarn")),
        file().with("llama.rope.scaling.factor", Value::F32(4.0)),
        file().with("llama.rope.scale_linear", Value::F32(2.0)),
        file().with("llama.expert_count", u(8)),
        file().with("llama.attention.sliding_window", u(16)),
        file().with("llama.attention.causal", Value::Flag(false)),
        file().with("llama.attention.value_length", u(4)),
        file().with("llama.rope.dimension_count", u(1)),
        file().with("llama.vocab_size", u(9)),
        file().with("llama.attention.head_count", Value::Ints(vec![2])),
        file().with("tokenizer.ggml.suppress_tokens", Value::Ints(vec![5])),
        file().with("tokenizer.ggml.add_eos_token", Value::Flag(true)),
        file().with("tokenizer.ggml.eot_token_id", u(9999)),
        file().with("tokenizer.ggml.padding_token_id", Value::I32(-1)),
        file().without("tokenizer.ggml.bos_token_id").with("tokenizer.ggml.add_bos_token", Value::Flag(true)),
        file().without("tokenizer.ggml.eos_token_id"),
        file().with("tokenizer.ggml.pre", t("default")),
        file().without("tokenizer.ggml.pre"),
        file().with("tokenizer.ggml.model", t("llama")),
        file().with("tokenizer.ggml.token_type", types(7)),
        file().with("tokenizer.ggml.token_type", types(999)),
        file().with("tokenizer.ggml.tokens", Value::Texts(vec!["a".into(), "b".into(), "a".into()])),
        file().with("general.type", t("adapter")),
        file().with("general.architecture", t("qwen2")),
        file().with("split.count", u(3)).with("split.no", u(1)),
    ];
    insta::assert_snapshot!(all.iter().map(refused).collect::<Vec<_>>().join("\n"));
}

#[test]
fn sizes_that_make_no_model_are_refused() {
    let all = [
        file().with("llama.attention.head_count", Value::U32(0)),
        file().with("llama.attention.head_count_kv", Value::U32(0)),
        file().with("llama.attention.key_length", Value::U32(3)),
        file().with("llama.block_count", Value::U32(u32::MAX)),
        file().with("llama.block_count", Value::U32(1 << 30)),
        file().with("llama.embedding_length", Value::U32(1 << 30)),
        file().with("llama.attention.head_count", Value::U32(8)),
    ];
    insta::assert_snapshot!(all.iter().map(refused).collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_changes_nothing_is_read() {
    let scores = Value::Ints(vec![0; 262]);
    imported(
        &file()
            .with("general.name", Value::Text("small".into()))
            .with("quantize.imatrix.file", Value::Text("x".into()))
            .with("split.count", Value::U32(1))
            .with("llama.rope.scaling.type", Value::Text("none".into()))
            .with("llama.rope.scaling.factor", Value::F32(1.0))
            .with("llama.expert_count", Value::U32(0))
            .with("llama.vocab_size", Value::U32(262))
            .with("tokenizer.ggml.scores", scores)
            .with("tokenizer.ggml.add_eos_token", Value::Flag(false))
            .with("tokenizer.chat_template.tool_use", Value::Text("x".into())),
    );
}

#[test]
fn answers_end_where_llama_cpp_ends_them() {
    let end = |f: &Written| imported(f).1.eos;
    assert_eq!(end(&file()), [1]);
    assert_eq!(end(&file().with("tokenizer.ggml.eot_token_id", Value::U32(10))), [1, 10]);
    let both =
        file().with("tokenizer.ggml.eot_token_id", Value::U32(10)).with("tokenizer.ggml.eom_token_id", Value::U32(11));
    assert_eq!(end(&both), [1, 10, 11]);
    let mut named = file();
    for (_, value) in named.metadata.iter_mut().filter(|(k, _)| k == "tokenizer.ggml.tokens") {
        let Value::Texts(tokens) = value else { panic!() };
        tokens[3] = "<|eot_id|>".into();
    }
    assert_eq!(end(&named), [1, 3], "by its name alone");
}

#[test]
fn the_first_token_is_written_once() {
    let tokens = |f: &Written| imported(f).1.encode_prompt(&Prompt::user("he")).unwrap();
    let he = 260;
    let begins = file().with("tokenizer.ggml.add_bos_token", Value::Flag(true));
    assert_eq!(tokens(&file()), [he]);
    assert_eq!(tokens(&begins), [2, he]);
    let template = |t: &str| ("tokenizer.chat_template".to_owned(), Value::Text(t.into()));
    for (text, plain, begun) in [
        ("{{ messages[0].content }}", vec![he], vec![2, he]),
        ("{{ bos_token }}{{ messages[0].content }}", vec![2, he], vec![2, he]),
    ] {
        let (key, value) = template(text);
        assert_eq!(tokens(&file().with(&key, value.clone())), plain, "{text}");
        assert_eq!(tokens(&begins.clone().with(&key, value)), begun, "{text}");
    }
    let llama3 = file().with("tokenizer.ggml.pre", Value::Text("llama-bpe".into()));
    assert_eq!(tokens(&llama3), [2, he], "unless the file says otherwise");
    assert_eq!(tokens(&llama3.with("tokenizer.ggml.add_bos_token", Value::Flag(false))), [he]);
}

/// What the user defined is text and is shown; control tokens are not.
#[test]
fn tokens_of_the_user_are_text() {
    let (_, tokenizer) = imported(&file());
    assert_eq!(tokenizer.decode(&[3, 260, 1]).unwrap(), "<user>he");
    assert_eq!(tokenizer.encode_prompt(&Prompt::user("<user>he<|stop|>")).unwrap(), [3, 260, 1]);
}

#[test]
fn mutants_are_imported_or_refused() {
    let original = write(&file());
    let head = original.len() - 4_700;
    let (mut good, mut bad) = (0, 0);
    for mut bytes in mutants::of(&original[..head], 1500) {
        bytes.extend(&original[head..]);
        match import_bytes(&bytes) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 5 && bad > 500, "{good} {bad}");
}

/// Files whose layout is whole and whose values are wild reach the model and the tokenizer.
#[test]
fn wild_values_are_imported_or_refused() {
    let wild = || {
        [
            Value::U32(0),
            Value::U32(7),
            Value::U32(u32::MAX),
            Value::I32(-1),
            Value::F32(f32::NAN),
            Value::F32(1e30),
            Value::Flag(true),
            Value::Text(String::new()),
            Value::Text("{{ x".into()),
            Value::Texts(vec![]),
            Value::Texts(vec!["".into(), " ".into()]),
            Value::Texts(vec!["h e l".into(), "x y".into()]),
            Value::Ints(vec![]),
            Value::Ints(vec![-1, 99]),
        ]
    };
    let keys: Vec<String> = file().metadata.into_iter().map(|(k, _)| k).collect();
    let others = [
        "tokenizer.chat_template",
        "llama.attention.key_length",
        "llama.rope.freq_base",
        "general.alignment",
        "split.count",
    ];
    let mut refused = 0;
    for key in keys.iter().map(String::as_str).chain(others) {
        for value in wild() {
            refused += usize::from(import_bytes(&write(&file().with(key, value))).is_err());
        }
    }
    assert!(refused > 200, "{refused}");
}
