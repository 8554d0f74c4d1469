//! Fits the rewards' scales on samples of the initial policy and freezes them, so that every later stage, whatever its method,
//! measures with the same ruler.

use super::rows::{load_prompts, plain};
use super::{Makes, Ref, Work};
use crate::decode::rollout;
use crate::files::write_json;
use crate::memory::{Drawing, Footprint, Known, Scorer, Scorers, longest_prompt};
use crate::names;
use crate::obey;
use crate::reward::implicit::{self, Implicit};
use crate::reward::{self, Ensemble, Reward, RewardModelOptions, RewardSet, check_folder, check_made, known};
use crate::session::{Cx, Session};
use crate::stage::Stage;
use crate::{Error, Result};
use motrain_core::data::{DataOptions, Row};
use motrain_core::error::did_you_mean;
use motrain_core::metrics::stats::pearson;
use motrain_core::options::{Checked, Options, parse};
use motrain_core::plan::{GenerationConfig, ModelRef};
use motrain_core::registry::{Kind, Registry};
use motrain_core::reward::Sample;
use motrain_core::rng::sub_seed;
use motrain_core::scale::{Fit, Scale};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::no_grad;

/// The rewards of an experiment, with scales fitted on the initial policy's samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    #[schemars(length(min = 1, max = 32))]
    pub sources: Vec<Reward>,
    /// The policy whose samples the scales are fitted on.
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// Number of samples for the fit.
    #[serde(default = "fit_samples")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub samples: usize,
    /// What of a reward's samples becomes 0 and 1: `quantiles`, the lowest and the highest hundredth, or `z_score`, the mean and one standard
    /// deviation above it. Levels and attributes read scores as from 0 to 1.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub fit: Fit,
    #[serde(default)]
    pub generate: GenerationConfig,
}

fn is_usual(fit: &Fit) -> bool {
    *fit == Fit::default()
}

fn fit_samples() -> usize {
    512
}

impl Options for Rewards {
    fn check(&self) -> Checked {
        if self.objectives().is_empty() {
            return Err(("sources", "must hold an objective, not only watched rewards and second opinions".into()));
        }
        for (i, Reward { name, scale, .. }) in self.sources.iter().enumerate() {
            if self.sources[..i].iter().any(|s| s.name == *name) {
                return Err(("sources", format!("hold two rewards called \"{name}\"; rename one")));
            }
            if let Some([low, high]) = scale.filter(|[low, high]| high - low < 1e-9) {
                return Err((
                    "sources",
                    format!("give \"{name}\" the scale [{low}, {high}]; the first must be below the second"),
                ));
            }
        }
        self.sources.iter().try_for_each(|source| self.check_opinion(source))
    }
}

impl Rewards {
    /// Names of the objectives, in the order of the weights.
    pub fn objectives(&self) -> Vec<String> {
        reward::objectives(&self.sources)
    }

    /// The objectives that have second opinions, by place, and the names of all that score them.
    pub fn doubted(&self) -> Vec<(usize, Vec<String>)> {
        reward::doubted(&self.sources)
    }

    fn check_opinion(&self, Reward { name, of, watch, .. }: &Reward) -> Checked {
        let Some(of) = of else { return Ok(()) };
        if *watch {
            return Err((
                "sources",
                format!("have \"{name}\" watched and a second opinion; it is watched as one, so leave out `watch`"),
            ));
        }
        let objectives = self.objectives();
        if objectives.contains(of) {
            return Ok(());
        }
        let near = did_you_mean(of, objectives.iter().map(String::as_str));
        Err(("sources", format!("have \"{name}\" as a second opinion on \"{of}\", which is no objective{near}")))
    }

    fn check_models(&self, fits: impl Fn(&Value) -> std::result::Result<(), String>) -> Checked {
        self.sources.iter().filter(|s| s.source.name == "reward_model").try_for_each(
            |Reward { name, source, .. }| {
                let wrong = |what| ("sources", format!("gives \"{name}\" a model that cannot score: {what}"));
                fits(&source.options).map_err(wrong)
            },
        )
    }
}

impl Work for Rewards {
    const KIND: &'static str = "rewards";
    const REVISION: u32 = 2;
    const MAKES: &'static [Makes] = &[Makes::Rewards];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let sources = self.sources.iter_mut().map(|s| Ref::Component(Kind::Reward, &mut s.source));
        [Ref::Model(&mut self.policy), Ref::Data(&mut self.prompts)].into_iter().chain(sources).collect()
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let (machine, policy) = (known.machine, known.model(&self.policy)?);
        let scorers = scorers_of(known, self)?;
        let prompts = longest_prompt(&self.prompts, &policy, self.generate.max_new_tokens, &plain)?;
        let at_once = self.samples.min(AT_ONCE) as f64;
        let drawing =
            Drawing { prompts: at_once, longest: prompts.longest, completions: 1.0, sampling: &self.generate };
        let mut out = Footprint::default();
        out.sampling(&policy, &scorers, &drawing, machine);
        // All samples are scored at the end.
        let all = Drawing { prompts: self.samples as f64, ..drawing };
        out.moment("scoring", policy.network(machine).and(&scorers.held(machine)).and(&scorers.scoring(&all, machine)));
        out.uncounted = scorers.uncounted;
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }

    fn check_among(&self, earlier: &[Stage]) -> Checked {
        let labels_of = |id: &str| earlier.iter().find(|s| s.id == id).and_then(|s| s.work.labels());
        self.check_models(|options| check_made(options, labels_of))
    }

    fn check_with(&self, _: &Registry) -> Checked {
        self.check_models(check_folder)
    }

    fn objectives(&self) -> Option<Vec<String>> {
        Some(self.objectives())
    }
}

/// Samples drawn at once.
const AT_ONCE: usize = 64;

fn run(stage: Cx, options: &Rewards) -> Result<()> {
    let session = stage.session;
    let set = RewardSet::build(&options.sources, session.registry, |o| session.resolve(o), BTreeMap::new())?;
    let (policy, tokenizer) = stage.load(&options.policy)?;
    let rows = load_prompts(
        &options.prompts,
        &tokenizer,
        options.generate.max_new_tokens,
        policy.config.shape.context,
        &plain,
    )?;
    set.check_rows(&options.prompts, &rows)?;
    let chosen: Vec<&Row> = (0..options.samples).map(|i| &rows[i % rows.len()]).collect();
    let bar = stage.progress(options.samples);
    bar.set_message("fitting reward scales on the initial policy");
    let net = no_grad(|| policy.net(session.dtype))?;
    let mut drawn = Vec::new();
    for (c, chunk) in chosen.chunks(AT_ONCE).enumerate() {
        let prompts = chunk.iter().map(|r| tokenizer.encode_prompt(&r.prompt)).collect::<Result<Vec<_>>>()?;
        // The same draws whatever the run's seed, so that the scores of several seeds are on one scale.
        let seed = |i: usize, _| sub_seed(0, "scales", (c * AT_ONCE + i) as u64);
        drawn.extend(rollout(&net, &tokenizer, &prompts, 1, seed, &options.generate)?);
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    let samples: Vec<Sample> = chosen.iter().zip(&drawn).map(|(row, c)| c.sample(row)).collect();
    let raw = set.score_raw(&samples)?;
    let provenance =
        format!("{} over samples of {} on {}", options.fit.words(), options.policy, options.prompts.paths.join(", "));
    let mut scales = BTreeMap::new();
    for source in options.sources.iter().filter(|s| !s.watch) {
        let scale = match source.scale {
            Some([low, high]) if high > low => Scale::given(low, high),
            Some([low, high]) => {
                return Err(Error::invalid(format!("reward \"{}\": scale [{low}, {high}] must rise", source.name)));
            }
            None => Scale::fit(&source.name, &known(&raw[&source.name]), options.fit, &provenance)?,
        };
        scales.insert(source.name.clone(), scale);
    }
    let names = options.objectives();
    let complete: Vec<usize> = (0..samples.len()).filter(|&i| names.iter().all(|n| raw[n][i].is_some())).collect();
    let column = |name: &String| known(&complete.iter().map(|&i| raw[name][i]).collect::<Vec<_>>());
    let correlations: Vec<Vec<f64>> =
        names.iter().map(|a| names.iter().map(|b| pearson(&column(a), &column(b))).collect()).collect();
    bar.finish();
    let mut found = json!({ "scales": scales, "objectives": names, "correlations": correlations });
    let apart = set.with_scales(scales).ensembles(&raw, samples.len())?;
    if !apart.is_empty() {
        let mean = |e: &Ensemble| (e.name.clone(), e.mean_disagreement());
        found["disagreement"] = json!(apart.iter().map(mean).collect::<BTreeMap<_, _>>());
    }
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join(names::SCALES), &found)
}

/// The reward models of the `rewards` stage called `id`.
pub fn scorers(known: &Known, id: &str) -> Result<Scorers> {
    let found = known.others.options(id).and_then(|options| options.downcast_ref::<Rewards>());
    found.map_or_else(|| Ok(Scorers::default()), |rewards| scorers_of(known, rewards))
}

fn scorers_of(known: &Known, rewards: &Rewards) -> Result<Scorers> {
    let mut out = Scorers::default();
    for Reward { name, source, .. } in &rewards.sources {
        let library = format!("reward {}", source.name);
        if source.name == "reward_model" {
            out.all.push(scorer(known, &source.options)?);
        } else if source.name == implicit::NAME {
            out.all.extend(policies(known, &source.options)?);
        } else if known.others.has_in_a_plugin(&library) {
            out.uncounted.push(format!("reward \"{name}\": what the plugin \"{}\" takes", source.name));
        } else if source.options.get("url").is_some() {
            out.uncounted.push(format!("reward \"{name}\": what its server takes, if it is this machine"));
        }
    }
    Ok(out)
}

fn scorer(known: &Known, options: &Value) -> Result<Scorer> {
    let options: RewardModelOptions = parse("reward \"reward_model\"", options)?;
    let (max_tokens, batch_size) = (options.max_tokens as f64, options.batch_size as f64);
    Ok(Scorer { model: known.model(&options.model)?, max_tokens, batch_size })
}

/// Both read the same rows.
fn policies(known: &Known, options: &Value) -> Result<[Scorer; 2]> {
    let Implicit { policy, reference, batch_size, .. } = parse("reward \"implicit\"", options)?;
    let one = |model: &ModelRef| -> Result<Scorer> {
        let model = known.model(model)?;
        let max_tokens = model.config.shape.context as f64;
        Ok(Scorer { model, max_tokens, batch_size: batch_size as f64 })
    };
    Ok([one(&policy)?, one(&reference)?])
}

/// The `rewards` stage called `id`.
pub fn of<'a>(session: &'a Session, id: &str) -> Result<&'a Rewards> {
    let found = session.stages.options(id).and_then(|options| options.downcast_ref::<Rewards>());
    found.ok_or_else(|| Error::invalid(format!("\"{id}\" is no rewards stage")))
}

/// The rewards of a finished `rewards` stage.
pub fn load(session: &Session, id: &str) -> Result<RewardSet> {
    let path = session.stage_folder(id).join(names::SCALES);
    let options = of(session, id)?;
    RewardSet::build(&options.sources, session.registry, |o| session.resolve(o), read_scales(&path)?)
}

fn read_scales(path: &Path) -> Result<BTreeMap<String, Scale>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(path, e.to_string()))?;
    serde_json::from_value(json["scales"].clone()).map_err(|e| Error::file(path, e.to_string()))
}
