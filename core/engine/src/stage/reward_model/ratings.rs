//! Ratings of answers, a label for each attribute (Wang et al. 2023, HelpSteer): the squared error of the label's score, over the ratings that there are.
//! A rating that a row does not have moves nothing. Held-out errors and correlations are reported for each attribute.

use super::{Encoded, RewardModel, encode_all};
use crate::files::write_json;
use crate::names;
use crate::reward::{Scorer, encode_for_reward};
use crate::session::Cx;
use crate::stage::short;
use crate::tokenizer::Tokenizer;
use crate::train::Trainer;
use crate::train::log::Metrics;
use crate::train::logprob::{Group, to_vec};
use crate::{Error, Result};
use motrain_core::data::{self, DataOptions, Rated};
use motrain_core::metrics::stats::{mean, pearson};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor, no_grad};

/// One for each attribute; none where a row has none.
type Ratings = Vec<Option<f64>>;

pub(super) fn train(stage: Cx, options: &RewardModel, data: &DataOptions, attributes: &[String]) -> Result<()> {
    let session = stage.session;
    let unseen = options.heldout(data)?;
    let (heldout, train) = (data::ratings(&unseen, attributes)?, data::ratings(data, attributes)?);
    check_rated(data, &train, attributes)?;
    let (model, tokenizer) = options.load(stage)?;
    let max_tokens = options.max_tokens.min(model.config.shape.context as usize);
    let train = encoded(&tokenizer, data, &train, max_tokens)?;
    let heldout = encoded(&tokenizer, &unseen, &heldout, max_tokens)?;
    let total = options.train.total_steps(train.len());
    let scorer = Scorer::new(tokenizer.clone(), &model.config)?;
    let mut t = Trainer::start(stage, model, tokenizer, &options.optimizer, total, &options.train)?;
    t.run(|t| {
        let batch = options.batch(stage, &train, t.state.step);
        let given = batch.iter().flat_map(|row| &row.known).flatten().count();
        let mut seen = vec![Vec::new(); attributes.len()];
        let micros = options.train.micro_batches(&batch, |row| row.tokens());
        let mut metrics = t.step(micros, given, |net, micro| {
            let groups: Vec<Group> = micro.iter().map(|row| row.group()).collect();
            let ratings: Vec<&Ratings> = micro.iter().map(|row| &row.known).collect();
            let errors = squared_errors(&scorer.values(net, &groups)?, &ratings, session.device)?;
            for (errors, ratings) in to_vec(&errors.f_reshape([-1])?)?.chunks(attributes.len()).zip(ratings) {
                let all = seen.iter_mut().zip(errors).zip(ratings);
                all.for_each(|((seen, error), rating)| seen.extend(rating.map(|_| *error)));
            }
            Ok(errors.f_sum(Kind::Float)?)
        })?;
        let rated = attributes.iter().zip(&seen).filter(|(_, errors)| !errors.is_empty());
        metrics.extend(rated.map(|(name, errors)| (format!("mse/{name}"), mean(errors))));
        let message = metrics.get("loss").map_or("nothing to learn".into(), |loss| format!("loss {}", short(*loss)));
        t.finish_step(&metrics, Metrics::new(), message)
    })?;
    let scores = options.scores(&no_grad(|| t.model.net(session.dtype))?, &scorer, &heldout)?;
    let ratings: Vec<&Ratings> = heldout.iter().map(|row| &row.known).collect();
    let report = quality(attributes, &scores, &ratings);
    tracing::info!("{}: held-out {}", stage.id, told(&report));
    write_json(&stage.folder().join(names::HELD_OUT), &report)?;
    t.finish()
}

/// Tokens of the longest row.
pub(super) fn longest(
    data: &DataOptions,
    tokenizer: &Tokenizer,
    attributes: &[String],
    max_tokens: usize,
) -> Result<usize> {
    let all = encoded(tokenizer, data, &data::ratings(data, attributes)?, max_tokens)?;
    Ok(all.iter().map(Encoded::tokens).max().unwrap_or(0))
}

/// An attribute that nobody rated would be learnt from nothing.
fn check_rated(options: &DataOptions, rows: &[Rated], attributes: &[String]) -> Result<()> {
    let unrated = (0..attributes.len()).find(|&k| rows.iter().all(|row| row.ratings[k].is_none()));
    unrated.map_or(Ok(()), |k| {
        Err(Error::invalid(format!(
            "no row of {} has a number in the column \"{}\"; correct its name in `attributes`, or leave it out",
            options.paths.join(", "),
            attributes[k]
        )))
    })
}

/// `(score − rating)²`, `[answers, labels]`, 0 where there is no rating.
fn squared_errors(scores: &Tensor, ratings: &[&Ratings], device: Device) -> Result<Tensor> {
    let all = || ratings.iter().flat_map(|row| row.iter());
    let wanted: Vec<f32> = all().map(|rating| rating.unwrap_or(0.0) as f32).collect();
    let absent: Vec<bool> = all().map(Option::is_none).collect();
    let shaped = |t: Tensor| -> Result<Tensor> { Ok(t.f_view_as(scores)?.f_to_device(device)?) };
    let (wanted, absent) = (shaped(Tensor::f_from_slice(&wanted)?)?, shaped(Tensor::f_from_slice(&absent)?)?);
    Ok(scores.f_sub(&wanted)?.f_square()?.f_masked_fill(&absent, 0.0)?)
}

/// The answers as tokens, with their ratings.
fn encoded(
    tokenizer: &Tokenizer,
    options: &DataOptions,
    rows: &[Rated],
    max_tokens: usize,
) -> Result<Vec<Encoded<Ratings>>> {
    encode_all(
        tokenizer,
        options,
        rows,
        |row| (&row.prompt, row.place),
        max_tokens,
        |row| {
            let answer = (row.completion.as_str(), row.finished);
            let (prompt, answer) = encode_for_reward(tokenizer, &row.prompt, answer, max_tokens)?;
            Ok(Encoded { prompt, answers: vec![answer], known: row.ratings.clone() })
        },
    )
}

/// Mean squared error and Pearson's r of each attribute, over the rows that rate it. Two ratings that differ are the least that correlate.
fn quality(attributes: &[String], scores: &[f64], ratings: &[&Ratings]) -> Value {
    let (mut report, mut all) = (Map::new(), Vec::new());
    for (k, name) in attributes.iter().enumerate() {
        let rows = scores.chunks(attributes.len()).zip(ratings);
        let (score, rating): (Vec<f64>, Vec<f64>) =
            rows.filter_map(|(scores, ratings)| Some((scores[k], ratings[k]?))).unzip();
        let errors: Vec<f64> = score.iter().zip(&rating).map(|(s, r)| (s - r).powi(2)).collect();
        let varies = rating.iter().any(|r| *r != rating[0]);
        report.insert(
            name.clone(),
            json!({
                "mse": (!errors.is_empty()).then(|| mean(&errors)),
                "pearson": varies.then(|| pearson(&score, &rating)),
                "ratings": rating.len(),
            }),
        );
        all.extend(errors);
    }
    json!({ "mse": mean(&all), "attributes": report, "rows": ratings.len() })
}

/// `helpfulness: error 0.91, correlation 0.42; …`
fn told(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().map_or("none".into(), short);
    let one = |(name, of): (&String, &Value)| {
        format!("{name}: error {}, correlation {}", number(&of["mse"]), number(&of["pearson"]))
    };
    report["attributes"].as_object().into_iter().flatten().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::stage::reward_model::tests::{Golden, gradient};

    /// Of each case of reward_losses.json.
    #[test]
    fn losses_and_gradients_are_those_of_the_equations() {
        for case in Golden::cases("ratings") {
            let rows: Vec<Ratings> = serde_json::from_value(case.0["ratings"].clone()).unwrap();
            let rows: Vec<&Ratings> = rows.iter().collect();
            let given = rows.iter().flat_map(|row| row.iter()).flatten().count() as f64;
            let loss = |scores: &Tensor| squared_errors(scores, &rows, Device::Cpu).unwrap();
            // `Trainer::step` divides by the ratings that there are.
            let scores = case.tensor("scores");
            case.compare(&loss(&scores), &gradient(&scores, &loss), given);
        }
    }

    #[test]
    fn quality_of_known_scores() {
        let names = ["a", "b", "c", "d"].map(String::from);
        let rows = [
            [Some(1.0), Some(2.0), None, None],
            [Some(3.0), None, None, Some(1.0)],
            [Some(2.0), Some(2.0), None, None],
        ];
        let rows = rows.map(Vec::from);
        let scores = [1.0, 2.0, 9.0, 0.0, 5.0, 7.0, 9.0, 3.0, 3.0, 1.0, 9.0, 0.0];
        let report = quality(&names, &scores, &rows.each_ref());
        let of = |name: &str, what: &str| report["attributes"][name][what].clone();
        assert_eq!((of("a", "mse"), of("a", "pearson"), of("a", "ratings")), (json!(5.0 / 3.0), json!(1.0), json!(3)));
        assert_eq!((of("b", "mse"), of("b", "pearson"), of("b", "ratings")), (json!(0.5), json!(null), json!(2)));
        assert_eq!((of("c", "mse"), of("c", "pearson"), of("c", "ratings")), (json!(null), json!(null), json!(0)));
        assert_eq!(of("d", "pearson"), json!(null));
        assert!((report["mse"].as_f64().unwrap() - 10.0 / 6.0).abs() < 1e-12);
        assert_eq!(report["rows"], 3);
    }
}
