//! The paper's page: figures, claims and costs from finished runs of scripts/paper.rhai.

use motrain_tests::{failure, motrain, read_json, small, success};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_papers_page_is_drawn_from_finished_runs() {
    let f = folder();
    let sets = [
        "paper.tasks=[\"hh\"]",
        "paper.only=[\"fig2\", \"fig4\", \"fig6\"]",
        "paper.epochs=[1.0, 2.0]",
        "tasks.hh.evaluation_completions=2",
        "tasks.hh.train={ steps = 2, batch_size = 4 }",
        "tasks.hh.ric={ prompts = 16, completions = 1, offline_steps = 2, rounds = 1, online_steps = 1 }",
    ];
    for seed in ["0", "1"] {
        let mut command = small(f.path(), "paper.rhai", &format!("paper/seed-{seed}"));
        for set in sets {
            command.args(["--set", set]);
        }
        success(command.args(["--set", &format!("seed={seed}")]));
    }
    let scales = |seed: u64| read_json(&f.path().join(format!("paper/seed-{seed}/stages/hh_rewards/scales.json")));
    assert_eq!(scales(0), scales(1), "two seeds are on two scales");
    let said = success(motrain(f.path()).args(["paper", "paper"]));
    assert!(said.contains("undecided  undecided  fig2  hh: MO-ODPO's front dominates Rewarded Soups's"), "{said}");
    assert!(said.contains("2 seeds"), "{said}");
    // Table 2 has an answer to each of its prompts, though evaluations have two.
    let page = std::fs::read_to_string(f.path().join("paper/paper.html")).unwrap();
    let table = page.split("Table 2, answers").nth(1).unwrap();
    let shown = table.lines().filter(|line| line.contains("<td>MO-ODPO</td>"));
    let prompts: std::collections::BTreeSet<_> = shown.map(|line| line.split("</td>").nth(1).unwrap()).collect();
    assert_eq!(prompts.len(), 3, "{prompts:?}");
    let all = read_json(&f.path().join("paper/paper.json"));
    let costs = all["table1"].as_array().unwrap();
    let cost =
        |name: &str| costs.iter().find(|c| c["method"] == name).unwrap_or_else(|| panic!("no {name}: {costs:?}"));
    assert_eq!((cost("MO-ODPO")["policies"].as_u64(), cost("ODPO Soups")["policies"].as_u64()), (Some(1), Some(2)));
    assert_eq!(cost("MO-ODPO")["extra_memory"], 0);
    assert!(cost("ODPO Soups")["extra_memory"].as_u64().unwrap() > 1_000_000);
    for name in ["MO-ODPO", "Rewarded Soups", "P-MORL", "Rewards-in-Context"] {
        for key in ["tokens_generated", "tokens_trained", "seconds", "serving_tokens_per_second"] {
            assert!(cost(name)[key].as_f64().unwrap() > 0.0, "{name} {key}");
        }
    }
    let panel = &all["figures"][0]["fronts"]["methods"][0]["points"][0];
    assert!(panel["ci"][0][0].as_f64() <= panel["rewards"][0].as_f64(), "{panel}");
    let page = std::fs::read_to_string(f.path().join("paper/paper.html")).unwrap();
    for part in [
        "Figure 2, fronts",
        "Figure 6, Rewards-in-Context by epochs",
        "Figure 4, win rates",
        "Table 1",
        "Table 2",
        "at (0.8, 0.2)",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    assert!(f.path().join("paper/fig2-hh.svg").is_file());
    std::fs::remove_file(f.path().join("paper/seed-1/stages/hh_fig2_ric/method.json")).unwrap();
    let message = failure(motrain(f.path()).args(["paper", "paper"]));
    assert!(message.contains("paper/seed-1 is not finished; run it again, finished stages are kept"), "{message}");
}

/// Table 1 has a row for each method that the paper cites and does not run, with what it cost.
#[test]
fn the_other_methods_of_table_1_have_their_costs() {
    let f = folder();
    let mut command = small(f.path(), "paper.rhai", "paper/seed-0");
    for set in [
        "paper.tasks=[\"hh\"]",
        "paper.only=[\"fig7\"]",
        "tasks.hh.train={ steps = 2, batch_size = 4 }",
        "tasks.hh.modpo={ completions = 2 }",
        "tasks.hh.blend={ strengths = [1.5] }",
        "tasks.hh.dpa={ prompts = 12, rounds = 1, completions = 2, weights = 1, steps = 1 }",
        "tasks.hh.cpo={ prompts = 12, completions = 1, candidates = 2, steps = 1, pair_steps = 1 }",
        "tasks.hh.steerlm={ prompts = 40, completions = 1, steps = 1, rounds = 0, model_train = { epochs = 1.0, batch_size = 8, micro_batch_size = 8 } }",
    ] {
        command.args(["--set", set]);
    }
    success(&mut command);
    success(motrain(f.path()).args(["paper", "paper"]));
    let all = read_json(&f.path().join("paper/paper.json"));
    let costs = all["table1"].as_array().unwrap();
    let cost =
        |name: &str| costs.iter().find(|c| c["method"] == name).unwrap_or_else(|| panic!("no {name}: {costs:?}"));
    for (name, policies, passes, data) in [
        ("MOD", 2, 2, ""),
        ("DeRa 1.5", 1, 2, ""),
        ("MORLHF", 6, 1, ""),
        ("MODPO", 6, 1, "pairs labelled by the reward models"),
        ("CLP", 1, 1, ""),
        ("Panacea", 1, 1, ""),
        ("MI-EPO", 1, 1, ""),
        ("Soft tokens", 1, 1, ""),
        ("DPA", 1, 1, "the best of several answers by the reward models"),
        ("CPO", 1, 1, "answers scored by the reward models, pairs labelled by the reward models"),
        ("SteerLM", 1, 1, "answers scored by the reward models, ratings made of the reward models' scores"),
    ] {
        let cost = cost(name);
        let found = (cost["policies"].as_u64(), cost["passes_per_token"].as_u64());
        assert_eq!((found, cost["data"].as_str()), ((Some(policies), Some(passes)), Some(data)), "{cost}");
        for key in ["tokens_generated", "tokens_trained", "serving_tokens_per_second"] {
            assert!(cost[key].as_f64().unwrap() > 0.0, "{name} {key}");
        }
    }
    let trained = |name: &str| cost(name)["parameters"].as_u64().unwrap();
    // An adapter of K copies, and one with K ranks more, train less than the whole; so much more than one policy is held.
    assert!(trained("Panacea") < trained("CLP") && trained("CLP") < trained("MI-EPO"), "{costs:?}");
    assert_eq!(cost("CLP")["extra_memory"].as_u64().unwrap(), 4 * trained("CLP"));
    let page = std::fs::read_to_string(f.path().join("paper/paper.html")).unwrap();
    assert!(page.contains("The methods of Table 1 that the paper does not run"), "{page}");
}
