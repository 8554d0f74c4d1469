//! The text files of a model folder.

use crate::{bundle, folder, model};
use motrain_core::{Message, Prompt};
use motrain_engine::files::Beside;
use motrain_engine::tokenizer::Tokenizer;

pub const FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tools.jinja",
];

/// A folder's text files: loaded, used as training uses them, saved and loaded again.
pub fn tokenizer(data: &[u8]) {
    let model = folder::with(&bundle::files(data, &FILES));
    let config = model::small_config();
    let Ok(tokenizer) = Tokenizer::load(model.path(), &config) else { return };
    used(&tokenizer);
    let saved = folder::new();
    if tokenizer.save(saved.path()).is_ok() {
        let _ = Tokenizer::load(saved.path(), &config);
    }
}

pub fn used(tokenizer: &Tokenizer) {
    let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let talk =
        [turn("system", "Be brief."), turn("user", "hello  World é 12\n"), turn("assistant", "ok"), turn("user", "x")];
    for prompt in [Prompt::user("hello World, hello!"), Prompt { messages: talk.to_vec() }, Prompt::user("")] {
        let _ = tokenizer.encode_prompt(&prompt);
        for finished in [true, false] {
            let _ = tokenizer.encode_answer(&prompt, "ok, World.", finished);
            let _ = tokenizer.encode_conversation(&prompt, "ok", finished);
        }
    }
    let _ = tokenizer.decode(&(0..40).collect::<Vec<_>>());
    let _ = tokenizer.decode(&[0, u32::MAX]);
}
