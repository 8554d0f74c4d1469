//! tokenizer_config.json, field by field: what is done, what is known to change nothing, and what is said aloud.

use super::codec::Read;
use crate::files::warn;
use serde_json::{Map, Value};
use std::path::Path;

/// Read by `special`, `template`, `tokenizer`.
const DONE: [&str; 5] = [
    "added_tokens_decoder",
    "chat_template",
    "clean_up_tokenization_spaces",
    "extra_special_tokens",
    "split_special_tokens",
];

/// Fields that do not change what transformers makes of a text where there is a tokenizer.json: limits and sides of calls that ask for
/// padding or truncation, notes on where the tokenizer is from, and settings of tokenizers in Python, whose work tokenizer.json describes.
const HARMLESS: [&str; 41] = [
    "__type",
    "add_bos_token",
    "add_eos_token",
    "backend",
    "chat_control_tokens",
    "do_lower_case",
    "errors",
    "fast_tokenizer_files",
    "files_loaded",
    "from_slow",
    "init_inputs",
    "is_local",
    "keep_accents",
    "legacy",
    "local_files_only",
    "max_len",
    "max_length",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "remove_space",
    "response_schema",
    "response_template",
    "return_token_type_ids",
    "sp_model_kwargs",
    "spaces_between_special_tokens",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "truncation",
    "truncation_side",
    "truncation_strategy",
    "use_default_system_prompt",
    "use_fast",
    "vocab_file",
];

/// Refuses fields of a wrong type, and names those whose effect is not known or not had here.
pub fn check(config: &Map<String, Value>, file: &Read, path: &Path) -> Result<(), String> {
    for key in ["clean_up_tokenization_spaces", "split_special_tokens"] {
        if let Some(value) = config.get(key).filter(|v| !v.is_boolean() && !v.is_null()) {
            return Err(format!("{key} is {value}; true or false is expected"));
        }
    }
    for (key, value) in config {
        match key.as_str() {
            "tokenizer_class" | "add_prefix_space" | "additional_special_tokens" => {}
            "auto_map" => warn(
                path,
                "auto_map names code of the model's author, which is not run; tokenizer.json is read as it stands",
            ),
            key if DONE.contains(&key) || HARMLESS.contains(&key) || key.ends_with("_token") => {}
            key => warn(path, &format!("{key} = {} is not known, and changes nothing here", short(value))),
        }
    }
    if let Some(class) =
        config.get("tokenizer_class").and_then(Value::as_str).filter(|c| !as_it_stands(c, config, file))
    {
        let what = format!(
            "tokenizer_class is {class:?}: transformers 5 makes that class's own pre-tokenizer, here it is tokenizer.json's"
        );
        warn(path, &what);
    }
    Ok(())
}

/// Whether transformers' class makes of a text what tokenizer.json says: some build normalizer, pre-tokenizer and decoder anew.
fn as_it_stands(class: &str, config: &Map<String, Value>, file: &Read) -> bool {
    let prefix = config.get("add_prefix_space").and_then(Value::as_bool);
    let says = |key: &str| file.pre_tokenizer.get(key);
    match class.trim_end_matches("Fast") {
        "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" => true,
        "LlamaTokenizer" if file.byte_level => true,
        "LlamaTokenizer" => {
            let prepends =
                says("prepend_scheme").map_or(file.normalizer.to_string().contains("Prepend"), |s| s != "never");
            prepends == prefix.unwrap_or(true)
        }
        "GPT2Tokenizer" => {
            says("type").is_some_and(|t| t == "ByteLevel")
                && says("use_regex").is_none_or(|v| v == true)
                && says("add_prefix_space").and_then(Value::as_bool) == Some(prefix.unwrap_or(false))
                && file.normalizer.is_null()
        }
        _ => false,
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(57).chain("...".chars()).collect() } else { text }
}
