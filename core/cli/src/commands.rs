//! What each command does.

use crate::args::{Args, Command, ConfigArgs, RunArgs};
use crate::components::Plugins;
use crate::out::say;
use crate::{allowed, bench, components, config, locate, out, paper, plugin_check, report, runs, script, signals};
use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use clap_complete::Shell;
use motrain_core::durable;
use motrain_core::options::describe;
use motrain_core::registry::{Kind, Registry};
use motrain_core::rng::sub_seed;
use motrain_core::task::TASKS;
use motrain_core::{Prompt, Weights};
use motrain_engine::folder::{self, Manifest, RunFolder, Status};
use motrain_engine::model::Llama;
use motrain_engine::plan::{Component, ModelRef, Plan, Sampling, Stage};
use motrain_engine::rollout::rollout;
use motrain_engine::stage::evaluate::Evaluate;
use motrain_engine::stage::{Ref, STAGES, Work};
use motrain_engine::steering::Steering;
use motrain_engine::text::Text;
use motrain_engine::{device, generation, import, run};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub fn dispatch(args: Args) -> Result<()> {
    match args.command {
        None => train(&args.run),
        Some(Command::Check { script, config }) => check(&script, &config),
        Some(Command::List { kind, script, config }) => list(kind.as_deref(), script.as_deref(), &config),
        Some(Command::Plugin { command }) => plugin_check::run(command),
        Some(Command::Import { file, folder }) => {
            import::import(&file, &folder)?;
            say!("{}", folder.display());
            Ok(())
        }
        Some(Command::Runs { command }) => runs::run(command),
        Some(Command::Paper { folder }) => paper::run(&folder),
        Some(Command::Completions { shell }) => completions(shell),
        Some(Command::Man { folder }) => man(&folder),
        Some(Command::MakeData { task, folder, seed }) => make_data(&task, &folder, seed),
        Some(command @ Command::Generate { .. }) => generate(command),
        Some(command @ Command::Evaluate { .. }) => evaluate(command),
        Some(Command::BenchPlugins { loss, reward }) => bench::run(&loss, &reward),
        Some(Command::Bench { model, dtype }) => Ok(motrain_engine::bench::run(&model, &dtype, out::line)?),
    }
}

/// From script and configuration to a checked plan, and the components that it uses.
fn make_plan(script: &Path, args: &ConfigArgs) -> Result<(Plan, Registry)> {
    let config = config::load(args)?;
    let script = locate::script(script);
    let plugins = Plugins::read(&config, args)?;
    let registry = components::from_config(&config, &plugins)?;
    let (mut plan, registry) = script::plan(&script, &config, registry, plugins.for_script(&script))?;
    if plan.stages.iter().flat_map(Stage::inputs).any(|path| Path::new(&path).is_relative()) {
        plan.directory = Some(here()?.to_string_lossy().into_owned());
    }
    for path in plan.plugins.iter_mut().map(|p| &mut p.path).chain(plan.script.as_mut().map(|s| &mut s.path)) {
        *path = std::path::absolute(&*path)?.to_string_lossy().into_owned();
    }
    plan.call_seconds = (!plan.plugins.is_empty()).then_some(plugins.call_seconds);
    Ok((plan, registry))
}

/// The components of the configuration and the command line.
fn configured(args: &ConfigArgs) -> Result<Registry> {
    let config = config::load(args)?;
    components::from_config(&config, &Plugins::read(&config, args)?)
}

fn here() -> Result<PathBuf> {
    std::env::current_dir().context("the working directory is not there any more")
}

fn train(args: &RunArgs) -> Result<()> {
    let (plan, registry, out) = match (&args.resume, &args.script) {
        (Some(folder), _) => {
            let plan = saved_plan(folder)?.read_in(&here()?);
            if folder::is_of_an_earlier_motrain(folder) {
                bail!(
                    "{} was made by an earlier motrain, whose stages this one cannot go on with; go on with that one, or do the \
                     run anew with --script and --out (what is there is kept)",
                    folder.display()
                );
            }
            let registry = components::from_plan(&plan, &args.config)?;
            plan.check(&registry)
                .with_context(|| format!("the plan of {} does not hold together", folder.display()))?;
            (plan, registry, folder.clone())
        }
        (None, Some(script)) => {
            let (plan, registry) = make_plan(script, &args.config)?;
            let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&plan.name));
            (plan, registry, out)
        }
        (None, None) => bail!("give --script or --resume"),
    };
    if args.print_plan {
        say!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(());
    }
    if args.resume.is_none() {
        check_inputs(&plan)?;
    }
    if args.dry_run {
        for stage in &plan.stages {
            let needs = stage.needs().join(", ");
            say!("{:<20} {}", stage.id, if needs.is_empty() { String::new() } else { format!("after {needs}") });
        }
        say!("would run in {}", out.display());
        return Ok(());
    }
    allowed::remember(&plan.plugins);
    run_and_report(&plan, &registry, &RunFolder::open(&out)?)?;
    say!("run:    {}", out.display());
    Ok(())
}

fn run_and_report(plan: &Plan, registry: &Registry, folder: &RunFolder) -> Result<()> {
    signals::listen()?;
    for front in run::run(plan, registry, folder)? {
        report::write(folder, plan, &front)?;
        if let Some(rewards) = &front.of {
            say!("\n{rewards}:");
        }
        say!("{}", report::table(&front.fronts));
        say!("report: {}", folder.root().join(front.file("report", "html")).display());
    }
    Ok(())
}

fn saved_plan(folder: &Path) -> Result<Plan> {
    let path = folder.join("plan.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} is no run folder: it has no plan.json", folder.display()))?;
    let plan = serde_json::from_str::<Value>(&text).and_then(serde_json::from_value);
    plan.with_context(|| format!("{} cannot be used", path.display()))
}

fn check(script: &Path, args: &ConfigArgs) -> Result<()> {
    let (plan, _) = make_plan(script, args)?;
    check_inputs(&plan)?;
    say!("{}: {} stages, all well", plan.name, plan.stages.len());
    Ok(())
}

fn check_inputs(plan: &Plan) -> Result<()> {
    match plan.missing_inputs() {
        missing if missing.is_empty() => Ok(()),
        missing => bail!("{}: inputs are missing\n{}", plan.name, missing.join("\n")),
    }
}

fn list(kind: Option<&str>, script: Option<&Path>, args: &ConfigArgs) -> Result<()> {
    let registry = match script {
        Some(script) => make_plan(script, args)?.1,
        None => configured(args)?,
    };
    let wanted = |name: &str| kind.is_none_or(|kind| kind == name);
    let say_entry = |name: &str, summary: &str, schema: &Value| {
        say!("  {name:<14} {summary}");
        describe(schema).iter().for_each(|line| say!("      {line}"));
    };
    for k in Kind::ALL.into_iter().filter(|k| wanted(k.name())) {
        say!("{}", k.name());
        registry.list(k).into_iter().for_each(|(name, summary, schema)| say_entry(name, summary, schema));
    }
    if wanted("stage") {
        say!("stage");
        for kind in STAGES {
            let schema = (kind.schema)();
            let summary = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
            say_entry(kind.name, &summary, &schema);
        }
    }
    Ok(())
}

fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "motrain", &mut text);
    say!("{}", String::from_utf8(text)?.trim_end());
    Ok(())
}

fn man(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(Args::command(), folder).with_context(|| folder.display().to_string())?;
    say!("{}", folder.display());
    Ok(())
}

fn make_data(task: &str, folder: &Path, seed: u64) -> Result<()> {
    let task = TASKS.iter().find(|t| t.name == task).context("unknown task")?;
    std::fs::create_dir_all(folder)?;
    let write = |name: &str, rows: &[Value]| -> Result<()> {
        let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
        Ok(std::fs::write(folder.join(name), text)?)
    };
    write("prompts.jsonl", &task.prompt_rows(1000, seed))?;
    let conditioner = Registry::builtin().conditioners.build("weight_prefix", &Value::Null)?;
    let prefix = |names: &[&str], weight: f64, prompt: &str| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let weights = Weights::quantised(&[weight, 1.0 - weight], 10);
        let rendered = weights.and_then(|w| conditioner.render(&names, &w, &Prompt::user(prompt)));
        rendered.map(|p| p.last_user().to_owned()).unwrap_or_default()
    };
    write("sft.jsonl", &task.sft_rows(16_000, seed, prefix))?;
    // So that the tokenizer knows the objectives' names as words.
    let named: Vec<Value> =
        (0..500).map(|_| serde_json::json!({ "text": prefix(&task.objectives, 0.5, "") })).collect();
    write("names.jsonl", &named)?;
    for (objective, rows) in task.pair_rows(10_000, seed) {
        write(&format!("pairs_{objective}.jsonl"), &rows)?;
    }
    say!("{}", folder.display());
    Ok(())
}

/// A model folder, or a run's policy/.
fn policy_folder(path: &Path) -> PathBuf {
    let inside = path.join("policy");
    if inside.join("config.json").is_file() { inside } else { path.to_owned() }
}

fn generate(command: Command) -> Result<()> {
    let Command::Generate {
        policy,
        prompt,
        weights,
        n,
        max_new_tokens,
        temperature,
        top_k,
        top_p,
        seed,
        device,
        plugins,
    } = command
    else {
        return Ok(());
    };
    let config = config::of_plugins(&plugins)?;
    let folder = policy_folder(&locate::find(&policy));
    let device = device::device(&device)?;
    let model = Llama::load(&folder, device)?;
    let text = Text::load(&folder, &model.config)?;
    let mut prompt = Prompt::from_dialogue(&prompt);
    if !weights.is_empty() {
        let registry = match policy.join("plan.json").exists() {
            true => components::from_plan(&saved_plan(&policy)?, &plugins)?,
            false => components::from_config(&config, &Plugins::read(&config, &plugins)?)?,
        };
        prompt = condition(&folder, &registry, Weights::new(weights)?, &prompt)?;
    }
    let usual = generation::sampling(&folder)?;
    let sampling = Sampling {
        max_new_tokens: max_new_tokens.unwrap_or(usual.max_new_tokens),
        temperature: temperature.unwrap_or(usual.temperature),
        top_k: top_k.unwrap_or(usual.top_k),
        top_p: top_p.unwrap_or(usual.top_p),
    };
    motrain_core::options::check_value("generate", &sampling)?;
    let seeds = vec![(0..n).map(|i| sub_seed(seed, "generate", i)).collect()];
    let net = model.net(device::kind("auto", device)?)?;
    for answer in &rollout(&net, &text, &[text.encode_prompt(&prompt)?], &seeds, &sampling)?[0] {
        say!("{}", answer.text);
    }
    Ok(())
}

/// Writes weights into the prompt with the conditioner that the policy was trained with (steering.json beside the model).
fn condition(folder: &Path, registry: &Registry, weights: Weights, prompt: &Prompt) -> Result<Prompt> {
    let steering = Steering::load(folder)?;
    if steering.objectives.len() != weights.len() {
        bail!(
            "{} weights for {} objectives ({})",
            weights.len(),
            steering.objectives.len(),
            steering.objectives.join(", ")
        );
    }
    let Component { name, options } = &steering.conditioner;
    let conditioner = registry.conditioners.build(name, options);
    let conditioner = conditioner.with_context(|| folder.join("steering.json").display().to_string())?;
    Ok(conditioner.render(&steering.objectives, &weights, prompt)?)
}

/// The run's plan up to its rewards, and one evaluation with other prompts, policy or grid.
fn evaluate(command: Command) -> Result<()> {
    let Command::Evaluate { run: folder, policy, prompts, limit, step, name, out, plugins } = command else {
        return Ok(());
    };
    let mut plan = saved_plan(&folder)?.read_in(&here()?);
    let last = plan.stages.iter().rev().find_map(|s| s.work.downcast_ref::<Evaluate>().cloned());
    let mut evaluation = last.with_context(|| format!("{} has no evaluation to start from", folder.display()))?;
    let folder_of = |id: &str| folder::stage(&folder, id).join("model").to_string_lossy().into_owned();
    let own = |model: &ModelRef| match model {
        ModelRef::Stage { stage } => ModelRef::Path(folder_of(stage)),
        path => path.clone(),
    };
    if let Some(path) = policy {
        evaluation.policy = Some(ModelRef::Path(policy_folder(&path).to_string_lossy().into_owned()));
        (evaluation.soup, evaluation.policies) = (None, None);
    }
    for reference in evaluation.refs() {
        if let Ref::Model(model) = reference {
            *model = own(model);
        }
    }
    plan.directory = Some(here()?.to_string_lossy().into_owned());
    evaluation.name = name;
    evaluation.step = step.unwrap_or(evaluation.step);
    evaluation.prompts.limit = limit.or(evaluation.prompts.limit);
    if let Some(path) = prompts {
        evaluation.prompts.paths = vec![path.to_string_lossy().into_owned()];
        evaluation.prompts.part = Default::default();
    }
    let evaluation = Stage::new("evaluate", evaluation);
    let needed = plan.behind(&evaluation.needs());
    plan.stages.retain(|s| s.id != evaluation.id && needed.contains(&s.id));
    plan.stages.push(evaluation);
    let registry = components::from_plan(&plan, &plugins)?;
    plan.check(&registry)?;
    if out.canonicalize().is_ok_and(|out| folder.canonicalize().is_ok_and(|own| own == out)) {
        bail!("--out {} is the run that is evaluated; name another folder", out.display());
    }
    let target = RunFolder::open(&out)?;
    bring_finished(&folder, &target, &plan)?;
    run_and_report(&plan, &registry, &target)
}

/// Brings what a run has finished into another run folder, weights by hard links where possible.
fn bring_finished(from: &Path, to: &RunFolder, plan: &Plan) -> Result<()> {
    if folder::is_of_an_earlier_motrain(from) {
        return Ok(());
    }
    let manifest = Manifest::read(from);
    if !to.root().join("manifest.json").exists() {
        // What its inputs were: they may be gone.
        std::fs::copy(from.join("manifest.json"), to.root().join("manifest.json"))?;
    }
    for stage in &plan.stages {
        let Some(hash) = manifest.stages.get(&stage.id) else { continue };
        folder::check_id(&stage.id)?;
        let (source, target) = (folder::stage(from, &stage.id), to.stage(&stage.id, hash));
        if Status::of(&source).is_some_and(|s| s.is_done(hash)) && !target.exists() {
            let partial = durable::beside(&target, "partial");
            durable::remove(&partial)?;
            copy_folder(&source, &partial)?;
            durable::publish(&partial, &target)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else if target.extension().is_none_or(|e| e != "safetensors")
            || std::fs::hard_link(entry.path(), &target).is_err()
        {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
