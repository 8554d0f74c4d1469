//! Fits the rewards' scales on samples of the initial policy and freezes them, so that every later stage, whatever its method,
//! measures with the same ruler.

use super::{load_prompts, plain};
use crate::model::write_json;
use crate::reward::{RewardSet, known};
use crate::rollout::rollout;
use crate::session::{Session, Stage, obey};
use crate::{Error, Result};
use motrain_core::data::Row;
use motrain_core::metrics::stats::pearson;
use motrain_core::plan::Rewards;
use motrain_core::reward::Sample;
use motrain_core::scale::Scale;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tch::no_grad;

/// Raised when this stage's results change.
pub const REVISION: u32 = 1;

pub fn run(stage: Stage, spec: &Rewards) -> Result<()> {
    let session = stage.session;
    let set = RewardSet::build(spec, session.registry, |o| session.resolve(o), BTreeMap::new())?;
    let (policy, text) = stage.load(&spec.policy)?;
    let rows = load_prompts(&spec.prompts, &text, spec.generate.max_new_tokens, policy.config.context, &plain)?;
    set.check_rows(&spec.prompts, &rows)?;
    let chosen: Vec<&Row> = (0..spec.samples).map(|i| &rows[i % rows.len()]).collect();
    let bar = stage.progress(spec.samples);
    bar.set_message("fitting reward scales on the initial policy");
    let net = no_grad(|| policy.net(session.kind))?;
    let mut drawn = Vec::new();
    for (c, chunk) in chosen.chunks(64).enumerate() {
        let prompts = chunk.iter().map(|r| text.encode_prompt(&r.prompt)).collect::<Result<Vec<_>>>()?;
        let seeds: Vec<Vec<u64>> = (0..chunk.len()).map(|i| vec![stage.seed("sample", (c * 64 + i) as u64)]).collect();
        let some = rollout(&net, &text, &prompts, &seeds, &spec.generate)?;
        drawn.extend(some.into_iter().flatten());
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    let samples: Vec<Sample> = chosen.iter().zip(&drawn).map(|(row, c)| c.sample(row)).collect();
    let raw = set.score_raw(&samples)?;
    let provenance =
        format!("1 % and 99 % quantiles over samples of {} on {}", spec.policy, spec.prompts.paths.join(", "));
    let mut scales = BTreeMap::new();
    for source in spec.sources.iter().filter(|s| !s.watch) {
        let scale = match source.scale {
            Some([low, high]) if high > low => Scale::given(low, high),
            Some([low, high]) => {
                return Err(Error::invalid(format!("reward \"{}\": scale [{low}, {high}] must rise", source.name)));
            }
            None => Scale::fit(&source.name, &known(&raw[&source.name]), &provenance)?,
        };
        scales.insert(source.name.clone(), scale);
    }
    let names = spec.objectives();
    let complete: Vec<usize> = (0..samples.len()).filter(|&i| names.iter().all(|n| raw[n][i].is_some())).collect();
    let column = |name: &String| known(&complete.iter().map(|&i| raw[name][i]).collect::<Vec<_>>());
    let correlations: Vec<Vec<f64>> =
        names.iter().map(|a| names.iter().map(|b| pearson(&column(a), &column(b))).collect()).collect();
    bar.finish();
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(
        &stage.folder().join("scales.json"),
        &json!({ "scales": scales, "objectives": names, "correlations": correlations }),
    )
}

/// The rewards of a finished `rewards` stage.
pub fn load(session: &Session, id: &str) -> Result<RewardSet> {
    let path = session.stage_folder(id).join("scales.json");
    let spec = session.rewards(id)?;
    RewardSet::build(spec, session.registry, |o| session.resolve(o), read_scales(&path)?)
}

fn read_scales(path: &Path) -> Result<BTreeMap<String, Scale>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
    serde_json::from_value(json["scales"].clone()).map_err(|e| Error::file(path, e.to_string()))
}
