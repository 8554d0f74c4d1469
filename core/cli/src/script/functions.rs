//! Functions of a script as components: `reward_fn`, `sampler_fn`, `conditioner_fn`, `label_fn`, `loss_fn`, `judge_fn`.

use super::function::Function;
use motrain_core::conditioner::Conditioner;
use motrain_core::judge::{Duel, Judge, Verdict};
use motrain_core::label::{Label, LabelRule};
use motrain_core::loss::{PairBatch, PairLoss, PairwiseLoss};
use motrain_core::reward::{RewardSource, Sample, all};
use motrain_core::rng::Rng;
use motrain_core::sampler::WeightSampler;
use motrain_core::{Prompt, Result, Weights};
use rand::Rng as _;
use rhai::{Array, Dynamic, Map};

/// A number, whichever way the script wrote it.
fn number(value: &Dynamic) -> std::result::Result<f64, String> {
    let whole = || value.as_int().ok().map(|i| i as f64);
    value
        .as_float()
        .ok()
        .or_else(whole)
        .ok_or_else(|| format!("returned a {} where a number is due", value.type_name()))
}

fn numbers(value: Dynamic) -> std::result::Result<Vec<f64>, String> {
    let kind = value.type_name();
    let list: Array = value.try_cast().ok_or_else(|| format!("returned a {kind} where an array of numbers is due"))?;
    list.iter().map(number).collect()
}

fn array(values: &[f64]) -> Array {
    values.iter().map(|v| Dynamic::from_float(*v)).collect()
}

/// `|prompt, answer|` → a score, or `()` for an answer that it leaves out. `prompt` is what the user said last. A third parameter is told whether the
/// answer was finished, not cut.
pub struct ScriptReward(pub Function);

impl RewardSource for ScriptReward {
    fn score(&self, batch: &[Sample]) -> std::result::Result<Vec<f64>, String> {
        all(self.score_where_possible(batch)?)
    }

    fn score_where_possible(&self, batch: &[Sample]) -> std::result::Result<Vec<Option<f64>>, String> {
        let told = self.0.takes(3);
        let one = |s: &Sample| {
            let (prompt, answer) = (s.prompt.last_user().to_owned(), s.completion.to_owned());
            let score = if told { self.0.call((prompt, answer, s.finished)) } else { self.0.call((prompt, answer)) };
            let score = score?;
            if score.is_unit() { Ok(None) } else { number(&score).map(Some) }
        };
        batch.iter().map(one).collect()
    }
}

/// `|objectives, index, uniform|` → weights. `uniform` holds one number in [0, 1) per objective.
pub struct ScriptSampler(pub Function);

impl WeightSampler for ScriptSampler {
    fn sample(&self, objectives: usize, index: u64, rng: &mut Rng) -> Result<Weights> {
        let uniform: Vec<f64> = (0..objectives).map(|_| rng.random()).collect();
        let drawn = self.0.call((objectives as i64, index as i64, array(&uniform))).and_then(numbers);
        let drawn = self.0.fail(drawn)?;
        if drawn.len() != objectives {
            return self.0.fail(Err(format!("returned {} weights for {objectives} objectives", drawn.len())));
        }
        self.0.fail(Weights::new(drawn).map_err(|e| e.to_string()))
    }
}

/// `|objectives, weights, text|` → the first user turn as the policy sees it.
pub struct ScriptConditioner(pub Function);

impl Conditioner for ScriptConditioner {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let names: Array = objectives.iter().map(|o| Dynamic::from(o.clone())).collect();
        let text = self.0.fail(self.0.call((names, array(weights.values()), prompt.first_user().to_owned())))?;
        let kind = text.type_name();
        let text = text.into_string().map_err(|_| format!("returned a {kind} where text is due"));
        let text = self.0.fail(text)?;
        let mut changed = prompt.clone();
        if let Some(first) = changed.messages.iter_mut().find(|m| m.role == "user") {
            first.content = text;
        }
        Ok(changed)
    }

    fn parse(&self, _objectives: &[String], _conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        None
    }
}

/// `|weights, first, second|` → the probability that the first is better, or `()` for a tie.
pub struct ScriptLabel(pub Function);

impl LabelRule for ScriptLabel {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        let found = self.0.fail(self.0.call((array(weights.values()), array(first), array(second))))?;
        if found.is_unit() {
            return Ok(Label::Tie);
        }
        self.0.fail(number(&found).and_then(Label::probability))
    }
}

/// `|pair|` → a number, differentiated by central differences, or `#{ loss, d_first, d_second }`.
pub struct ScriptLoss(pub Function);

/// Nats by which log-probs are moved for a central difference.
const STEP: f64 = 1e-4;

impl ScriptLoss {
    fn pair(pairs: &PairBatch, i: usize, move_first: f64, move_second: f64) -> Map {
        let k = pairs.weights.len() / pairs.len().max(1);
        let (first, second) = (pairs.policy_first[i] + move_first, pairs.policy_second[i] + move_second);
        let numbers = [
            ("policy_first", first),
            ("policy_second", second),
            ("reference_first", pairs.reference_first[i]),
            ("reference_second", pairs.reference_second[i]),
            ("label", pairs.label[i]),
            ("gap", (first - pairs.reference_first[i]) - (second - pairs.reference_second[i])),
        ];
        let mut map: Map = numbers.iter().map(|(name, v)| ((*name).into(), Dynamic::from_float(*v))).collect();
        map.insert("tokens_first".into(), Dynamic::from_int(i64::from(pairs.tokens_first[i])));
        map.insert("tokens_second".into(), Dynamic::from_int(i64::from(pairs.tokens_second[i])));
        map.insert("weights".into(), array(&pairs.weights[i * k..(i + 1) * k]).into());
        map.insert("margins".into(), array(&pairs.margins[i * k..(i + 1) * k]).into());
        map
    }

    fn one(&self, pairs: &PairBatch, i: usize) -> std::result::Result<(f64, f64, f64), String> {
        let at = |first: f64, second: f64| self.0.call((Self::pair(pairs, i, first, second),));
        let found = at(0.0, 0.0)?;
        if let Some(map) = found.read_lock::<Map>() {
            let get = |name: &str| number(map.get(name).ok_or(format!("returned a map without \"{name}\""))?);
            return Ok((get("loss")?, get("d_first")?, get("d_second")?));
        }
        let difference = |a: Dynamic, b: Dynamic| Ok::<f64, String>((number(&a)? - number(&b)?) / (2.0 * STEP));
        let d_first = difference(at(STEP, 0.0)?, at(-STEP, 0.0)?)?;
        let d_second = difference(at(0.0, STEP)?, at(0.0, -STEP)?)?;
        Ok((number(&found)?, d_first, d_second))
    }
}

impl PairwiseLoss for ScriptLoss {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let mut out = PairLoss::default();
        for i in 0..pairs.len() {
            let (loss, d_first, d_second) = self.0.fail(self.one(pairs, i))?;
            out.loss.push(loss);
            out.d_first.push(d_first);
            out.d_second.push(d_second);
        }
        Ok(out)
    }

    fn beta(&self) -> f64 {
        1.0
    }
}

/// `|prompt, first, second|` → 1 or 2 for the better answer, 0 for a tie, or `()` for a duel that it leaves out. `prompt` is what the user said last.
pub struct ScriptJudge(pub Function);

impl Judge for ScriptJudge {
    fn judge(&self, duels: &[Duel]) -> std::result::Result<Vec<Option<Verdict>>, String> {
        let one = |d: &Duel| {
            let said = self.0.call((d.prompt.last_user().to_owned(), d.first.to_owned(), d.second.to_owned()))?;
            match said.as_int() {
                Ok(0) => Ok(Some(Verdict::Tie)),
                Ok(1) => Ok(Some(Verdict::First)),
                Ok(2) => Ok(Some(Verdict::Second)),
                _ if said.is_unit() => Ok(None),
                Ok(other) => Err(format!("returned {other}; {VERDICTS}")),
                Err(kind) => Err(format!("returned a {kind}; {VERDICTS}")),
            }
        };
        duels.iter().map(one).collect()
    }
}

const VERDICTS: &str = "a verdict is 1 or 2 for the better answer, 0 for a tie, or () for no verdict";
