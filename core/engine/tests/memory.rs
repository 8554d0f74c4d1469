//! What is known of a model's memory before it is loaded is what it has once it is.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test may panic")]

use motrain_engine::model::{Config, Model, Trained};
use motrain_engine::plan::{Gains, Lora, Targets};
use std::path::{Path, PathBuf};
use tch::Device;

/// Every folder with a model of the families' fixtures, and SmolLM2 where it is.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let fixtures = std::fs::read_dir(root.join("tests/fixtures/families")).unwrap();
    let all = fixtures.map(|entry| entry.unwrap().path()).chain([root.join("models/smollm2")]);
    all.filter(|folder| ["config.json", "model.safetensors"].iter().all(|file| folder.join(file).is_file())).collect()
}

#[test]
fn parameters_counted_from_config_json_are_those_that_are_loaded() {
    let folders = folders();
    assert!(folders.len() > 30, "{folders:?}");
    for folder in folders {
        let counted = Trained::whole(&Config::load(&folder).unwrap()).numbers();
        let loaded = Model::load(&folder, Device::Cpu).unwrap();
        // What only the weights tell: whether Beaver's head has a bias.
        let counted = Trained::whole(&loaded.config).numbers().max(counted);
        assert_eq!(counted, loaded.parameter_count() as f64, "{}", folder.display());
    }
}

#[test]
fn an_adapters_numbers_are_those_that_train() {
    let whole = Lora::default();
    let some = Lora { r: 3, targets: Targets::All(".*[13].*".into()), ..Lora::default() };
    let full = Lora { full: true, gains: Gains::Copies, ..Lora::default() };
    let diagonal = Lora { r: 3, gains: Gains::Diagonal, ..Lora::default() };
    let soft = Lora { soft_tokens: 5, ..Lora::default() };
    let alone = Lora { soft_tokens: 5, targets: Targets::Ends(vec![]), ..Lora::default() };
    for folder in folders() {
        for options in [&whole, &some, &full, &diagonal, &soft, &alone] {
            let mut model = Model::load(&folder, Device::Cpu).unwrap();
            let counted = Trained::adapter(options, &model.config)
                .map(|trained| trained.with_gains(options, 2, &model.config).numbers());
            match (counted, model.attach(options, &folder, None, 2, 0)) {
                (Ok(counted), Ok(())) => assert_eq!(counted, model.trained_count() as f64, "{}", folder.display()),
                (counted, attached) => {
                    assert_eq!(counted.unwrap_err().to_string(), attached.unwrap_err().to_string());
                }
            }
        }
    }
}
