//! Texts as vectors, as sentence-transformers makes them of an encoder's states.

use crate::fields::{Fields, Said};
use crate::head::Pool;
use serde_json::Value;
use std::path::Path;

/// How a folder's embeddings are made.
#[derive(Debug, PartialEq, Eq)]
pub struct Embedding {
    pub pool: Pool,
    /// Tokens that its texts may have.
    pub longest: usize,
}

impl Embedding {
    /// What a sentence-transformers folder says; of any other, the mean of all states.
    pub fn read(folder: &Path) -> Said<Self> {
        let told = |name: &str, what: String| format!("{}: {what}", folder.join(name).display());
        modules(folder).map_err(|what| told("modules.json", what))?;
        let longest = match optional(folder, "sentence_bert_config.json")? {
            Some(mut f) => f
                .only("do_lower_case", false)
                .and_then(|()| f.take("max_seq_length"))
                .map_err(|what| told("sentence_bert_config.json", what))?,
            None => None,
        };
        let pool = pool(folder).map_err(|what| told(POOLING, what))?;
        Ok(Self { pool, longest: longest.unwrap_or(usize::MAX) })
    }
}

const POOLING: &str = "1_Pooling/config.json";

fn optional(folder: &Path, name: &str) -> Said<Option<Fields>> {
    let path = folder.join(name);
    path.is_file().then(|| Fields::read(&path)).transpose().map_err(|what| format!("{}: {what}", path.display()))
}

/// Refuses layers that would change an embedding's direction.
fn modules(folder: &Path) -> Said<()> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    let list: Vec<Value> = serde_json::from_str(&text).map_err(|e| format!("is no JSON list: {e}"))?;
    for kind in list.iter().map(|module| module["type"].as_str().unwrap_or_default()) {
        let name = kind.rsplit('.').next().unwrap_or_default();
        if !["Transformer", "Pooling", "Normalize"].contains(&name) {
            return Err(format!("names a module {kind:?}; this plugin knows Transformer, Pooling and Normalize"));
        }
    }
    Ok(())
}

fn pool(folder: &Path) -> Said<Pool> {
    let Some(mut f) = optional(folder, POOLING)? else { return Ok(Pool::Mean) };
    let mut modes = Vec::new();
    for mode in ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"] {
        modes.extend(f.take::<bool>(&format!("pooling_mode_{mode}"))?.filter(|on| *on).map(|_| mode.to_owned()));
    }
    modes.extend(f.take::<String>("pooling_mode")?);
    match modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["mean_tokens" | "mean"] => Ok(Pool::Mean),
        ["cls_token" | "cls"] => Ok(Pool::First),
        _ => Err(format!("says pooling_mode {}; this plugin knows mean_tokens or cls_token", modes.join(" and "))),
    }
}

/// The cosine of the angle between two vectors; 0 where one has no direction.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Said<Embedding> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Embedding::read(folder.path()).map_err(|e| e.replace(&folder.path().display().to_string(), "[folder]"))
    }

    #[test]
    fn a_sentence_transformers_folder_says_how_its_embeddings_are_made() {
        assert_eq!(read(&[]), Ok(Embedding { pool: Pool::Mean, longest: usize::MAX }));
        let cls = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        let long = ("sentence_bert_config.json", r#"{"max_seq_length": 256}"#);
        assert_eq!(read(&[(POOLING, cls), long]), Ok(Embedding { pool: Pool::First, longest: 256 }));
        let both = r#"{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}"#;
        let dense = r#"[{"type": "sentence_transformers.models.Dense"}]"#;
        assert_eq!(
            [read(&[(POOLING, both)]), read(&[("modules.json", dense)])].map(Result::unwrap_err),
            [
                "[folder]/1_Pooling/config.json: says pooling_mode cls_token and max_tokens; this plugin knows mean_tokens or cls_token",
                "[folder]/modules.json: names a module \"sentence_transformers.models.Dense\"; this plugin knows Transformer, Pooling and Normalize"
            ]
        );
    }

    #[test]
    fn cosines_of_known_angles() {
        assert_eq!(
            [cosine(&[2.0, 0.0], &[0.0, 1.0]), cosine(&[1.0, 2.0], &[-2.0, -4.0]), cosine(&[0.0], &[1.0])],
            [0.0, -1.0, 0.0]
        );
    }
}
