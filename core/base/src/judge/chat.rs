//! A language model behind an OpenAI-compatible server as judge.

use super::{Duel, Judge, Verdict};
use crate::http::{Chat, ChatServer, fill, in_parallel};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Judge> = Builtin {
    name: "chat",
    summary: "a language model's choice, by an OpenAI-compatible server",
    schema: schema::<ChatOptions>(),
    build: |owner, options| Ok(Box::new(ChatJudge::new(parse(owner, options)?))),
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
    /// {question}, {prompt}, {first} and {second} are filled in. The model should answer with 1, 2 or 0.
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
    fn new(options: ChatOptions) -> Self {
        Self { chat: Chat::new(&options.server), options }
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
        match said.chars().find(char::is_ascii_digit) {
            Some('1') => Ok(Verdict::First),
            Some('2') => Ok(Verdict::Second),
            Some('0') => Ok(Verdict::Tie),
            _ => Err(format!("{}: no 0, 1 or 2 in the model's reply \"{}\"", self.chat.url(), said.replace('\n', " "))),
        }
    }
}

impl Judge for ChatJudge {
    /// With `on_failure = "skip"`, a duel that could not be asked counts as a tie.
    fn judge(&self, duels: &[Duel]) -> Result<Vec<Verdict>, String> {
        let limits = &self.options.server.limits;
        let replies = in_parallel(duels.len(), limits.concurrency, |i| self.one(&duels[i]));
        Ok(limits.decide(replies)?.into_iter().map(|v| v.unwrap_or(Verdict::Tie)).collect())
    }
}
