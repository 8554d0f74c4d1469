//! What a stage's model was after some epochs of its training.

use motrain_tests::{failure, small, success, write};

/// Trains for three epochs of two steps each, and evaluates the policy after `epoch` of them and in the end.
fn script(keep: &str, epoch: &str) -> String {
    format!(
        "import \"lib/steer\" as steer;
         let task = cfg.tasks.hh;
         task.train = steer::changed(task.train, #{{ epochs: 3.0, keep: {keep} }});
         let scored = steer::scaled(task);
         let policy = steer::prompted(\"policy\", task, path(task.policy), scored);
         steer::front(\"early\", \"early\", task, steer::changed(policy, #{{ {epoch} }}), scored);
         steer::front(\"last\", \"last\", task, policy, scored);"
    )
}

#[test]
fn a_policy_is_evaluated_as_it_was_after_an_epoch() {
    let f = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::read(f.path().join(name)).unwrap();
    write(f.path(), "kept.rhai", &script("[1.0, 2.0]", "epoch: 2.0"));
    success(small(f.path(), "kept.rhai", "kept").args(["--set", "tasks.hh.optimizer.lr=1e-3"]));
    let policy = |name: &str| file(&format!("kept/stages/policy/{name}/model.safetensors"));
    assert!(policy("model-after-2") == policy("checkpoint-4"), "not what it was after four of six steps");
    assert!(policy("model-after-1") != policy("model-after-2"));
    assert!(file("kept/stages/early/answers.jsonl") != file("kept/stages/last/answers.jsonl"));
    write(f.path(), "plain.rhai", &script("[]", ""));
    success(small(f.path(), "plain.rhai", "plain").args(["--set", "tasks.hh.optimizer.lr=1e-3"]));
    assert!(file("plain/stages/policy/model/model.safetensors") == policy("model"), "keeping has changed the training");
    assert!(file("plain/stages/early/answers.jsonl") == file("kept/stages/last/answers.jsonl"));
}

#[test]
fn an_epoch_that_is_not_kept_is_refused() {
    let f = tempfile::tempdir().unwrap();
    let said = |keep: &str, epoch: &str| {
        write(f.path(), "kept.rhai", &script(keep, epoch));
        failure(small(f.path(), "kept.rhai", "run").arg("--dry-run"))
    };
    insta::assert_snapshot!("not_kept", said("[1.0]", "epoch: 2.0"));
    insta::assert_snapshot!("kept_too_late", said("[1.0, 4.0]", "epoch: 1.0"));
    insta::assert_snapshot!("no_epoch", said("[1.0]", "epoch: 0.0"));
}
