//! Adapters in training, and gradients, of every family.

use super::{Goldens, differences, logits, logits_at, nothing_wrong, numbers, root, worst};
use motrain_engine::model::{Adapter, FAMILIES, Mask, Mix, Model, Net, RowGains};
use motrain_engine::plan::{Gains, Lora};
use motrain_engine::train::logprob::{Group, pack, to_vec};
use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

/// An adapter in training that stands where PEFT's folder of it stands.
fn attached(goldens: &Goldens, name: &str, case: &Value) -> Model {
    let folder = root().join("fixtures/families").join(name);
    let said: Value = serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    let options = Lora {
        r: said["r"].as_i64().unwrap(),
        alpha: said["lora_alpha"].as_f64().unwrap(),
        targets: serde_json::from_value(said["target_modules"].clone()).unwrap(),
        rslora: said["use_rslora"].as_bool().unwrap(),
        ..Lora::default()
    };
    let mut model = goldens.model(case["base"].as_str().unwrap());
    model.attach(&options, Path::new("base"), None, 0, 1).unwrap();
    model.lora.as_mut().unwrap().restore(&folder).unwrap();
    model
}

#[test]
fn adapters_in_training_compute_what_peft_does_and_have_its_gradients() {
    nothing_wrong("adapter", |name, case, goldens| {
        let mut model = attached(goldens, name, case);
        let mut wrong = differences(name, &model, case, goldens);
        model.require_grad().unwrap();
        let net = model.training_net(Kind::Float, 1, false).unwrap();
        let prompt: Vec<u32> = serde_json::from_value(goldens.0["prompt"].clone()).unwrap();
        let completion: Vec<u32> = serde_json::from_value(goldens.0["completions"][0].clone()).unwrap();
        let packed = pack(&[Group { prompt: &prompt, completions: vec![&completion] }], 0, Device::Cpu).unwrap();
        packed.token_log_probs(&net, 1.0).unwrap().sum(Kind::Float).backward();
        let expected = case["gradients"].as_object().unwrap();
        assert_eq!(model.trained().len(), expected.len(), "{name}");
        for (tensor, p) in model.trained() {
            let (gradient, wanted) = (p.grad(), &expected[tensor]);
            let rows = gradient.narrow(0, 0, wanted["rows"].as_array().unwrap().len() as i64);
            let norm = f64::try_from(gradient.square().sum(Kind::Double).sqrt()).unwrap();
            let wanted_norm = wanted["norm"].as_f64().unwrap();
            let gap = worst(&to_vec(&rows.reshape([-1])).unwrap(), &numbers(&wanted["rows"]));
            if (norm / wanted_norm - 1.0).abs() > 1e-3 || gap > 1e-3 * wanted_norm.max(1.0) {
                wrong.push(format!("{name}: gradient of {tensor} has norm {norm} instead of {wanted_norm}, gap {gap}"));
            }
        }
        // The base is what it was, and its gradient nobody's.
        assert!(model.params.iter().all(|(_, p)| !p.requires_grad()), "{name}");
        wrong
    });
}

/// What a base with an adapter in it trains on is saved as one adapter of the base.
#[test]
fn an_adapter_goes_on_from_an_adapter() {
    let goldens = Goldens::read();
    for (name, case) in goldens.cases("adapter") {
        let folder = root().join("fixtures/families").join(name);
        let base = || goldens.model(case["base"].as_str().unwrap());
        let start = || Adapter::load(&folder, Device::Cpu).unwrap();
        let mut model = start().merged_into(base()).unwrap();
        let row = &goldens.rows(case)[1];
        let seen = |model: &Model| to_vec(&logits(&model.net(Kind::Float).unwrap(), row).reshape([-1])).unwrap();
        let before = seen(&model);
        let reference =
            |model: &Model| to_vec(&logits(&model.reference(Kind::Float).unwrap(), row).reshape([-1])).unwrap();
        model.attach(&Lora { r: 3, ..Lora::default() }, Path::new("base"), Some(start()), 0, 5).unwrap();
        assert!(worst(&seen(&model), &before) < 1e-5, "{name}: a new adapter changes something");
        for (tensor, p) in &mut model.lora.as_mut().unwrap().params {
            if tensor.contains("lora_B") {
                let _ = p.f_fill_(0.05).unwrap();
            }
        }
        assert!(worst(&seen(&model), &before) > 0.1, "{name}: the adapter changes nothing");
        assert!(worst(&reference(&model), &before) < 1e-5, "{name}: the reference moved");
        let saved = tempfile::tempdir().unwrap();
        model.lora.as_ref().unwrap().save(saved.path()).unwrap();
        let joined = Adapter::load(saved.path(), Device::Cpu).unwrap().applied_to(&base()).unwrap();
        assert!(worst(&seen(&joined), &seen(&model)) < 1e-3, "{name}: saved otherwise than trained");
        let merged = model.lora.as_ref().unwrap().merged(&model).unwrap();
        assert!(worst(&seen(&merged), &seen(&model)) < 1e-3, "{name}: merged otherwise than trained");
    }
}

/// Rows of one batch with gains of their own answer as the mixes of parameters with these weights do.
#[test]
fn gains_weigh_adapters_row_by_row() {
    let goldens = Goldens::read();
    let base = goldens.model("gpt_neox");
    let folder = root().join("fixtures/families/gpt_neox_lora");
    let adapter = || Adapter::load(&folder, Device::Cpu).unwrap();
    let mut other = attached(&goldens, "gpt_neox_lora", &goldens.0["cases"]["gpt_neox_lora"]);
    other.lora.as_mut().unwrap().params.iter_mut().for_each(|(_, p)| *p = p.flip([0]) * 0.7);
    let saved = tempfile::tempdir().unwrap();
    other.lora.as_ref().unwrap().save(saved.path()).unwrap();
    let second = || Adapter::load(saved.path(), Device::Cpu).unwrap();
    let weights = [[1.0, 0.0], [0.0, 1.0], [0.25, 0.75], [0.0, 0.0]];
    let gains = RowGains::of_rows(&weights.each_ref().map(|w| w.as_slice()), Device::Cpu).unwrap();
    let net = base.net_with(&[adapter(), second()], Kind::Float).unwrap();
    let plain = goldens.rows(&goldens.0["cases"]["gpt_neox"])[1].clone();
    let row = plain.iter().map(|&id| i64::from(id)).collect::<Vec<_>>();
    let ids = Tensor::from_slice(&row).unsqueeze(0).expand([4, -1], false);
    let positions = Tensor::arange(row.len() as i64, (Kind::Int64, Device::Cpu)).unsqueeze(0).expand([4, -1], false);
    let hidden = no_grad(|| net.hidden_at(&ids, &positions, &Mask::Causal, None, &gains)).unwrap();
    let together = no_grad(|| net.head_at(&hidden, &gains).unwrap());
    let names = ["one", "two"].map(str::to_owned);
    let mix = Mix::of_adapters(goldens.model("gpt_neox"), vec![adapter(), second()], &names).unwrap();
    for (i, w) in weights.iter().enumerate() {
        let alone = logits(&mix.at(w).unwrap().net(Kind::Float).unwrap(), &plain);
        let gap = f64::try_from((together.get(i as i64) - alone).abs().max()).unwrap();
        assert!(gap < 1e-3, "{w:?}: {gap}");
    }
}

/// Gradients by the name of what trains.
fn gradients(model: &Model, net: &Net, goldens: &Goldens) -> Vec<(String, Tensor)> {
    let prompt: Vec<u32> = serde_json::from_value(goldens.0["prompt"].clone()).unwrap();
    let completions: Vec<Vec<u32>> = serde_json::from_value(goldens.0["completions"].clone()).unwrap();
    // Two forward passes before the gradient, as losses of several parts have.
    let groups = completions.iter().map(|c| [Group { prompt: &prompt, completions: vec![c] }]);
    let sums = groups.map(|g| pack(&g, 0, Device::Cpu).unwrap().token_log_probs(net, 1.0).unwrap().sum(Kind::Float));
    sums.reduce(|a, b| a + b * 0.5).unwrap().backward();
    net.backpropagate().unwrap();
    let taken = |(name, p): &(String, Tensor)| {
        let gradient = p.grad().copy();
        p.shallow_clone().zero_grad();
        (name.clone(), gradient)
    };
    model.trained().iter().filter(|(_, p)| p.grad().defined()).map(taken).collect()
}

#[test]
fn layers_that_are_computed_again_have_the_same_gradients() {
    let goldens = Goldens::read();
    let adapters = goldens.cases("adapter").map(|(name, _)| name);
    for name in FAMILIES.iter().map(|family| family.model_type()).chain(adapters) {
        let case = &goldens.0["cases"][name];
        let mut model = if name.ends_with("_lora") { attached(&goldens, name, case) } else { goldens.model(name) };
        if let Some(lora) = &mut model.lora {
            lora.dropout = 0.3;
        }
        model.require_grad().unwrap();
        let all =
            |recompute: bool| gradients(&model, &model.training_net(Kind::Float, 7, recompute).unwrap(), &goldens);
        let (kept, again) = (all(false), all(true));
        assert!(kept.len() > 8 && kept.len() == again.len(), "{name}: {} and {}", kept.len(), again.len());
        for ((tensor, a), (_, b)) in kept.iter().zip(&again) {
            let (gap, norm) = ((a - b).norm(), a.norm());
            let (gap, norm) = (f64::try_from(gap).unwrap(), f64::try_from(norm).unwrap());
            assert!(gap <= 1e-5 * norm.max(1e-3), "{name}: gradient of {tensor} differs by {gap} of {norm}");
        }
    }
}

/// What each objective's changes are saved as answers as they did together in training, whatever the family: low-rank and whole copies, soft tokens.
#[test]
fn what_parameters_steer_is_saved_in_every_family() {
    let goldens = Goldens::read();
    let copies = || Lora { r: 2, gains: Gains::Copies, ..Lora::default() };
    let ways = [
        ("copies", copies()),
        ("whole copies", Lora { full: true, ..copies() }),
        ("soft tokens and copies", Lora { soft_tokens: 2, ..copies() }),
    ];
    for name in FAMILIES.iter().map(|family| family.model_type()) {
        let base = || goldens.model(name);
        let row = &goldens.rows(&goldens.0["cases"][name])[1];
        for (way, options) in &ways {
            if options.soft_tokens > 0 && base().config.shape.embed_scale.is_some() {
                continue;
            }
            let mut model = base();
            model.attach(options, Path::new("base"), None, 2, 3).unwrap();
            move_all(&mut model.lora.as_mut().unwrap().params);
            let folder = tempfile::tempdir().unwrap();
            let parts = [0, 1].map(|k| {
                let place = folder.path().join(k.to_string());
                model.lora.as_ref().unwrap().save_part(&place, k).unwrap();
                Adapter::load(&place, Device::Cpu).unwrap()
            });
            // In shares of what other weights change: bf16 rounds otherwise where products are laid out.
            for (kind, share) in [(Kind::Float, 1e-3), (Kind::BFloat16, 0.3)] {
                let seen = |net: &Net, gains: &[f64]| logits_at(net, gains, row);
                let mean = |gap: Tensor| gap.abs().mean(Kind::Double).double_value(&[]);
                let own = no_grad(|| model.training_net(kind, 0, false)).unwrap();
                let saved = no_grad(|| base().net_with(&parts, kind)).unwrap();
                let (trained, other) = (seen(&own, &[0.3, 0.7]), seen(&saved, &[0.9, 0.1]));
                let (gap, effect) = (mean(seen(&saved, &[0.3, 0.7]) - &trained), mean(other - &trained));
                assert!(effect > 0.02, "{name}, {way}, {kind:?}: other weights change {effect}");
                assert!(
                    gap < share * effect,
                    "{name}, {way}, {kind:?}: saved otherwise than trained, {gap} of {effect}"
                );
            }
        }
    }
}

/// As if trained: waves, a little different for each tensor.
fn move_all(params: &mut [(String, Tensor)]) {
    for (i, (_, p)) in params.iter_mut().enumerate() {
        let wave = Tensor::arange(p.numel() as i64, (Kind::Float, Device::Cpu)).view(p.size().as_slice());
        *p = (wave + (i as f64 + 1.0) * 3.7).sin() * 0.3;
    }
}
