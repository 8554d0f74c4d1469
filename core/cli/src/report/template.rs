//! Pages from the templates beside their code (`*.html.j2`). Whatever a template prints is made safe to print and escaped, but for what it
//! marks as `safe`: figures of our own.

use anyhow::Result;
use minijinja::value::Value;
use minijinja::{Environment, Error, Output, State, UndefinedBehavior};
use motrain_core::shown::printable;

const TEMPLATES: [(&str, &str); 3] = [
    ("base.html.j2", include_str!("base.html.j2")),
    ("report.html.j2", include_str!("report.html.j2")),
    ("paper.html.j2", include_str!("../paper/paper.html.j2")),
];

/// A page of the template `name` and what it shows.
pub fn render(name: &str, shown: Value) -> Result<String> {
    let mut pages = Environment::new();
    pages.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    pages.set_formatter(escaped);
    pages.add_filter("fixed", |number: f64, decimals: usize| format!("{number:.decimals$}"));
    for (name, text) in TEMPLATES {
        pages.add_template(name, text)?;
    }
    Ok(pages.get_template(name)?.render(shown)? + "\n")
}

fn escaped(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    let text = value.to_string();
    out.write_str(&if value.is_safe() { text } else { escape(&text) }).map_err(Error::from)
}

fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Serde;
    use motrain_core::metrics::report::{Fronts, Scored, method};
    use serde_json::json;

    /// A page that a front of this method is on.
    fn page(template: &str, name: &str) -> String {
        let scored = |a: f64| Scored {
            weights: motrain_core::Weights::new(vec![a, 1.0 - a]).unwrap(),
            rewards: vec![vec![a, 0.4], vec![0.3, 1.0 - a]],
            watched: [(name.to_owned(), vec![0.1, 0.2])].into(),
        };
        let fronts = Fronts {
            objectives: vec![name.into(), "B".into()],
            reference_point: vec![0.0, 0.0],
            methods: vec![method(name, &[scored(0.0), scored(1.0)], &[0.0, 0.0], 0)],
            ceiling: Some(0.5),
        };
        let answers = match template {
            "report.html.j2" => json!({ "weights": [name], "rows": [[name, [name]]] }),
            _ => json!([[name]]),
        };
        let shown = json!({
            "title": name, "svg": "<svg></svg>", "fronts": fronts, "reference": "0, 0", "answers": answers, "plan": name, "manifest": name,
            "stages": [{ "id": name, "curves": ["<svg></svg>"], "times": [[name, 1.25, 0.0]] }], "seeds": [0],
            "claims": [{ "claim": name, "standing": "held", "among_all": "undecided", "figure": "fig2", "measured": name }],
            "panels": [{ "figure": "fig2", "task": name, "fronts": fronts, "svg": "<svg></svg>" }], "matches": [], "costs": [],
        });
        render(template, Serde(shown).into()).unwrap()
    }

    #[test]
    fn names_from_elsewhere_break_no_page() {
        for template in ["report.html.j2", "paper.html.j2"] {
            let page = page(template, "\u{1b}<b>&\"\u{0}");
            assert!(page.contains("\\u{1b}&lt;b&gt;&amp;&quot;\\u{0}"), "{page}");
            assert!(!page.contains("<b>") && !page.contains(|c: char| c.is_control() && c != '\n'), "{page}");
            assert!(page.contains("<svg></svg>") && page.ends_with("</html>\n"), "{page}");
        }
    }
}
