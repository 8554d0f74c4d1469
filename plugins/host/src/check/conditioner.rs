//! Conditioners.

use super::{Trials, same};
use motrain_core::conditioner::Conditioner;
use motrain_core::{Prompt, Weights};

pub fn conditioner(t: &mut Trials, conditioner: &dyn Conditioner, again: &dyn Conditioner) {
    let objectives = ["Helpfulness".to_owned(), "Harmlessness".to_owned()];
    let plain = Prompt::user("How do I boil an egg?");
    let render = |c: &dyn Conditioner, w: f64, prompt: &Prompt| {
        let weights = Weights::new(vec![w, 1.0 - w]).map_err(|e| e.to_string())?;
        c.render(&objectives, &weights, prompt).map_err(|e| e.to_string())
    };
    t.run("renders", || render(conditioner, 0.8, &plain).map(|p| p.one_line()));
    t.run("other weights", || {
        let alike = render(conditioner, 0.8, &plain)? == render(conditioner, 0.2, &plain)?;
        if alike { Err("0.8 and 0.2 render alike".into()) } else { Ok("another prompt".into()) }
    });
    t.run("repeatable", || same(render(conditioner, 0.3, &plain)?, render(again, 0.3, &plain)?));
    let hostile = Prompt::user("\0🙂\u{202e}".repeat(2000));
    t.run("hostile input", || render(conditioner, 1.0, &hostile).map(|_| "rendered".into()));
    t.run("reads back", || match conditioner.parse(&objectives, &render(conditioner, 0.8, &plain)?) {
        None => Ok("no inverse".into()),
        Some((w, prompt)) if (w.values()[0] - 0.8).abs() < 0.051 && prompt == plain => Ok("weights and prompt".into()),
        Some((w, prompt)) => Err(format!("0.8, 0.2 came back as {:?} and {}", w.values(), prompt.one_line())),
    });
}
