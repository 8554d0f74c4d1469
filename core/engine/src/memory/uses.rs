//! What stages do with models: train them, draw from them, score with them.

use super::{F32, Footprint, Machine, Part, Parts, Shaped, opening};
use crate::Result;
use crate::decode::MAX_ROWS;
use crate::model::PACKED;
use crate::model::{Batch, Trained};
use crate::optim::state_numbers;
use motrain_core::plan::{GenerationConfig, Lora, Optimizer, Training};

/// Of the activations and logits of a backward pass, what glibc keeps of freed blocks between them: before 2.38 a freed aligned block serves no other of its
/// size. Chosen to fit docs/performance.md, before memory was kept between the moments of a step: with gradient checkpointing it is too little since.
const FREED: f64 = 1.0 / 3.0;

/// A model in training.
pub struct Trainee<'a> {
    pub model: Shaped,
    trained: Trained,
    lora: Option<&'a Lora>,
    optimizer: &'a Optimizer,
    train: &'a Training,
    machine: Machine,
}

/// Tensors of the size of a parameter that an optimiser's step has at once.
const STEP_TENSORS: f64 = 3.0;

impl<'a> Trainee<'a> {
    pub fn new(
        model: Shaped,
        lora: Option<&'a Lora>,
        optimizer: &'a Optimizer,
        train: &'a Training,
        machine: Machine,
    ) -> Result<Self> {
        let trained = match lora {
            Some(lora) => Trained::adapter(lora, &model.config)?,
            None => Trained::whole(&model.config),
        };
        Ok(Self { model, trained, lora, optimizer, train, machine })
    }

    /// With gains of so many objectives.
    pub fn with_gains_of(mut self, objectives: usize) -> Self {
        if let Some(lora) = self.lora {
            self.trained = self.trained.with_gains(lora, objectives, &self.model.config);
        }
        self
    }

    /// The model that is read, of which all or a part is trained.
    pub fn opening(&self, read: &Shaped) -> Vec<Parts> {
        match self.lora {
            Some(_) => opening(read, self.machine.bytes, Part::Weights, self.machine),
            None => opening(read, F32, Part::Masters, self.machine),
        }
    }

    /// From the first step to the last.
    pub fn held(&self) -> Parts {
        let numbers = self.trained.numbers();
        let base = if self.lora.is_some() { self.machine.bytes * self.model.numbers } else { 0.0 };
        Parts::default()
            .with(Part::Masters, F32 * numbers)
            .with(Part::Gradients, F32 * numbers)
            .with(Part::Optimizer, F32 * state_numbers(self.optimizer, &self.trained.shapes))
            .with(Part::Weights, base)
    }

    /// While the network is there: what trains, in the type of computing.
    pub fn computing(&self) -> Parts {
        // Whole changes of a parameter's parts are put together.
        let whole = self.lora.is_some_and(|lora| lora.full);
        let copied = whole || self.machine.bytes < F32;
        let copy = if copied { self.machine.bytes * self.trained.numbers() } else { 0.0 };
        self.held().with(Part::Weights, copy)
    }

    /// The policy that training began with: a copy, or the base of an adapter.
    pub fn reference(&self) -> Parts {
        let copy = if self.lora.is_some() { 0.0 } else { self.machine.bytes * self.model.numbers };
        Parts::default().with(Part::Reference, copy)
    }

    /// The forward and backward pass of a micro-batch of rows of `width` tokens, of which `targets` are predicted.
    pub fn update(&self, width: f64, targets: f64) -> Parts {
        let batch = micro_batch(self.train, width, targets);
        let passes = self.machine.passes(&self.model.config);
        let again = self.train.gradient_checkpointing;
        let kept = if again { passes.kept_inputs(&self.trained, batch) } else { passes.kept(&self.trained, batch) };
        let logits = passes.logits(batch.targets, true, again);
        let freed = if self.machine.gpu { 0.0 } else { FREED * (kept + logits) };
        self.computing().with(Part::Activations, kept).with(Part::Freed, freed).with(Part::Logits, logits)
    }

    /// The optimiser's step on the largest tensor.
    pub fn stepping(&self) -> Parts {
        self.held().with(Part::Optimizer, STEP_TENSORS * F32 * self.trained.largest())
    }

    /// When a whole model is made of an adapter.
    pub fn merging(&self) -> Option<Parts> {
        let merges = self.lora.is_some_and(|lora| lora.merge);
        merges.then(|| self.held().with(Part::Masters, F32 * self.model.numbers))
    }

    /// What comes of it.
    pub fn makes(&self) -> Shaped {
        let own = self.lora.filter(|lora| !lora.merge).map(|_| self.trained.numbers());
        let adapter = own.map(|own| own + self.model.adapter.unwrap_or(0.0));
        let steered = self.lora.is_some_and(Lora::is_steered);
        Shaped::made(self.model.config.clone(), adapter, Some(&self.model)).steered(steered, self.room())
    }

    /// Tokens before every prompt.
    pub fn room(&self) -> f64 {
        self.lora.map_or(0.0, |lora| lora.soft_tokens as f64)
    }
}

/// The fullest micro-batch of rows of so many tokens.
fn micro_batch(train: &Training, width: f64, targets: f64) -> Batch {
    let by_tokens = match train.micro_batch_tokens {
        0 => f64::INFINITY,
        most => (most as f64 / width.max(1.0)).floor().max(1.0),
    };
    let rows = (train.batch_size.min(train.micro_batch_size) as f64).min(by_tokens);
    Batch { rows, width, targets: rows * targets }
}

/// Completions that are drawn together.
#[derive(Clone, Copy)]
pub struct Drawing<'a> {
    /// Prompts, their longest, and completions of each.
    pub prompts: f64,
    pub longest: f64,
    pub completions: f64,
    pub sampling: &'a GenerationConfig,
}

impl Drawing<'_> {
    /// With a network that is there already.
    pub fn parts(&self, model: &Shaped, machine: Machine) -> Parts {
        let passes = machine.passes(&model.config);
        let prompts = self.prompts.min((MAX_ROWS as f64 / self.completions).floor().max(1.0));
        let (rows, new) = (prompts * self.completions, self.sampling.max_new_tokens as f64);
        let GenerationConfig { temperature, top_k, top_p, .. } = self.sampling;
        let read = Batch { rows: prompts, width: self.longest, targets: 0.0 };
        let prompt = passes.cache(prompts, self.longest);
        let whole = passes.cache(rows, self.longest + new);
        // Finished rows are dropped once they are a quarter, by a copy of the others.
        let copied = if rows > 1.0 { 0.75 * whole } else { 0.0 };
        Parts::default()
            .with(Part::Cache, whole + copied.max(prompt))
            .with(Part::Activations, passes.plain(read))
            .with(Part::Logits, passes.next_tokens(rows, *top_k > 0 || *top_p < 1.0, *temperature == 0.0))
    }
}

/// A reward model of a `rewards` stage.
pub struct Scorer {
    pub model: Shaped,
    pub max_tokens: f64,
    pub batch_size: f64,
}

/// The reward models of a `rewards` stage, which are there together.
#[derive(Default)]
pub struct Scorers {
    pub all: Vec<Scorer>,
    /// Rewards whose memory cannot be known.
    pub uncounted: Vec<String>,
}

impl Scorers {
    pub fn held(&self, machine: Machine) -> Parts {
        let numbers = self.all.iter().map(|scorer| scorer.model.numbers).sum::<f64>();
        Parts::default().with(Part::Rewards, machine.bytes * numbers)
    }

    /// One is read beside those before it.
    pub fn opening(&self, machine: Machine) -> Vec<Parts> {
        let (mut out, mut before) = (Vec::new(), Parts::default());
        for Scorer { model, .. } in &self.all {
            out.extend(
                opening(model, machine.bytes, Part::Rewards, machine).iter().map(|parts| parts.clone().and(&before)),
            );
            before = before.with(Part::Rewards, machine.bytes * model.numbers);
        }
        out
    }

    /// Scores what was drawn; one at a time.
    pub fn scoring(&self, drawn: &Drawing, machine: Machine) -> Parts {
        let new = drawn.sampling.max_new_tokens as f64;
        let one = |scorer: &Scorer| {
            let most = scorer.max_tokens.min(scorer.model.config.shape.context as f64);
            let together = drawn.completions.min(PACKED as f64);
            let width = (drawn.longest + new).min(most) + (together - 1.0) * new.min(most);
            let groups = drawn.prompts * (drawn.completions / together).ceil();
            let batch = Batch { rows: groups.min(scorer.batch_size), width, targets: 0.0 };
            machine.passes(&scorer.model.config).plain(batch)
        };
        Parts::default().with(Part::Activations, self.all.iter().map(one).fold(0.0, f64::max))
    }
}

/// What answers takes: while it is loaded, and then.
#[derive(Default)]
pub struct Taken {
    pub loading: Vec<Parts>,
    pub held: Parts,
}

impl Taken {
    /// One network.
    pub fn by_one(model: &Shaped, machine: Machine) -> Self {
        Self { loading: opening(model, machine.bytes, Part::Weights, machine), held: model.network(machine) }
    }
}

impl Shaped {
    /// A network that only computes. What weights steer is there as it was read and in the type of computing.
    pub fn network(&self, machine: Machine) -> Parts {
        let beside = self.adapter.filter(|_| self.steered).map_or(0.0, |numbers| (F32 + machine.bytes) * numbers);
        Parts::default().with(Part::Weights, machine.bytes * self.numbers + beside)
    }
}

impl Footprint {
    /// The moments of a stage that draws from a policy and scores.
    pub fn sampling(&mut self, policy: &Shaped, scorers: &Scorers, drawing: &Drawing, machine: Machine) {
        let held = policy.network(machine).and(&scorers.held(machine));
        self.moments("loading reward models", scorers.opening(machine));
        let loading = opening(policy, machine.bytes, Part::Weights, machine);
        self.moments("loading the policy", loading.into_iter().map(|parts| parts.and(&scorers.held(machine))));
        self.moment("drawing", held.clone().and(&drawing.parts(policy, machine)));
        self.moment("scoring", held.and(&scorers.scoring(drawing, machine)));
    }
}
