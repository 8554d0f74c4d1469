//! A language model behind an OpenAI-compatible server as judge.

use super::verdict::stated;
use crate::http::{Chat, ChatServer, bad_url, fill};
use motrain_core::judge::{Duel, Judge, Verdict};
use motrain_core::options::{Checked, Options, parse};
use motrain_core::registry::{Builtin, schema};
use motrain_core::shown::quoted;
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Judge> = Builtin {
    name: "chat",
    summary: "a language model's choice, by an OpenAI-compatible server",
    schema: schema::<ChatOptions>(),
    build: |owner, options| Ok(Box::new(ChatJudge::new(parse(owner, options)?).map_err(|what| bad_url(owner, what))?)),
};

const TEMPLATE: &str = "{question}\n\nPrompt:\n{prompt}\n\nResponse 1:\n{first}\n\nResponse 2:\n{second}\n\n\
                        Answer with \"1\" or \"2\", or \"0\" if neither is better. Say nothing else.";

#[derive(Deserialize, JsonSchema)]
// deny_unknown_fields does not go with flatten; the schema has all names, and is checked first.
struct ChatOptions {
    #[serde(flatten)]
    server: ChatServer,
    /// What is asked, such as "Which response is more helpful?".
    #[schemars(length(min = 1, max = 10_000))]
    question: String,
    /// {question}, {prompt}, {first} and {second} are filled in. The model should answer with 1, 2 or 0 (A, B or C will do).
    #[serde(default = "template")]
    #[schemars(length(min = 1, max = 100_000))]
    template: String,
}

fn template() -> String {
    TEMPLATE.into()
}

impl Options for ChatOptions {
    fn check(&self) -> Checked {
        if let Some(missing) = ["{first}", "{second}"].into_iter().find(|part| !self.template.contains(part)) {
            return Err(("template", format!("must contain {missing}")));
        }
        self.server.check()
    }
}

struct ChatJudge {
    options: ChatOptions,
    chat: Chat,
}

impl ChatJudge {
    fn new(options: ChatOptions) -> Result<Self, String> {
        Ok(Self { chat: Chat::new(&options.server)?, options })
    }

    fn one(&self, duel: &Duel) -> Result<Verdict, String> {
        let prompt = duel.prompt.to_dialogue();
        let values = [
            ("{question}", self.options.question.as_str()),
            ("{prompt}", &prompt),
            ("{first}", duel.first),
            ("{second}", duel.second),
        ];
        let said = self.chat.ask(&fill(&self.options.template, &values))?;
        stated(&said).map_err(|why| {
            let (name, said) = (self.chat.name(), quoted(&said));
            format!("{name}: no 0, 1 or 2 that is sure in the model's reply \"{said}\": {why}; ask for the verdict alone on the last line")
        })
    }
}

impl Judge for ChatJudge {
    /// With `on_failure = "skip"`, there is no verdict on a duel that could not be asked or read.
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Option<Verdict>>, String> {
        self.options.server.limits.ask(duels.len(), |i| self.one(&duels[i]))
    }
}
