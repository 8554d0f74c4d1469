//! Whether an adapter fits a base.

use super::{Adapter, CONFIG, Factors, WEIGHTS, biased, is_linear};
use crate::model::config::Config;
use crate::model::head::Head;
use crate::model::peft::Place;
use crate::model::slots::{Slot, slots, slots_and_head};
use crate::model::soft;
use crate::{Error, Result};

impl Adapter {
    /// Refuses a base that the adapter was not made for.
    pub fn check(&self, base: &Config) -> Result<()> {
        self.check_among(base, slots(base))
    }

    /// The same of an adapter that stays beside the base, and so may change the head alone of a pair of embedding and head.
    pub fn check_beside(&self, base: &Config) -> Result<()> {
        self.check_among(base, slots_and_head(base))
    }

    fn check_among(&self, base: &Config, all: Vec<Slot>) -> Result<()> {
        let fits = self.fits(base, &all).and_then(|()| self.has_sizes_of(base, &all));
        fits.map_err(|what| Error::invalid(format!("{}: {what}", self.name)))
    }

    fn has_sizes_of(&self, base: &Config, all: &[Slot]) -> std::result::Result<(), String> {
        if let Some(soft) = &self.soft {
            soft::check(base)?;
            if soft.size()[0] >= base.shape.context {
                let (tokens, context) = (soft.size()[0], base.shape.context);
                return Err(format!("its {tokens} soft tokens leave no room in the base's context of {context}"));
            }
            if soft.size()[1] != base.shape.hidden_size {
                let (found, wanted) = (soft.size()[1], base.shape.hidden_size);
                return Err(format!("its soft tokens are of width {found}, the base's of {wanted}{}", self.made_for()));
            }
        }
        for slot in all {
            for part in &slot.parts {
                let name = &part.name;
                let wanted = [&[part.rows][..], &slot.shape[1..]].concat();
                let found = match (self.factors.get(name), self.whole.get(name)) {
                    (Some(Factors { a, b, .. }), _) => vec![b.size()[0], a.size()[1]],
                    (None, Some(own)) => part.order.shape(&own.size()),
                    (None, None) => continue,
                };
                if found != wanted {
                    return Err(format!(
                        "its {name} is {found:?}, the base's is {wanted:?}{}; say in its {CONFIG} (base_model_name_or_path) where the model \
                         lies that it was trained on",
                        self.made_for()
                    ));
                }
            }
        }
        Ok(())
    }

    /// What the adapter's own words are of its base.
    fn made_for(&self) -> String {
        self.config.base.as_ref().map_or(String::new(), |base| format!("; it was made for \"{base}\""))
    }

    /// Whether the adapter's file holds what its configuration says it changes of this base, and nothing else.
    fn fits(&self, base: &Config, all: &[Slot]) -> std::result::Result<(), String> {
        let made_for = self.made_for();
        let own = self.factors.keys().chain(self.whole.keys());
        let own_names = base.arch.names();
        let ends = [own_names.embed, own_names.head].map(|name| format!("{name}.weight"));
        let is_here = |name: &str| all.iter().any(|slot| slot.name == name);
        let tied = |name: &str| base.head == Head::TiedLm && (name == ends[0] || name == ends[1] && !is_here(name));
        if let Some(name) = own.clone().find(|name| tied(name)) {
            return Err(format!(
                "changes {name}, and the base has one matrix as embedding and as head: with PEFT only one of them changes; save the base \
                 with tie_word_embeddings = false and a {} of its own (a part of a policy that weights steer is given as one of gains: [..])",
                ends[1]
            ));
        }
        let parts = || all.iter().flat_map(|slot| slot.parts.iter().map(move |part| (slot, part)));
        if let Some(bias) = self.config.bias.as_ref().filter(|_| parts().any(|(_, part)| part.name.ends_with(".bias")))
        {
            return Err(biased(bias));
        }
        if let Some(odd) = own.clone().find(|name| !parts().any(|(_, part)| part.name == **name)) {
            return Err(format!("the base has no {odd}{made_for}"));
        }
        for (slot, part) in parts().filter(|(_, part)| part.name.ends_with(".weight")) {
            let name = &part.name;
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let place = Place { names: own_names, linear: is_linear(slot, base) };
            let (said, there) = (self.config.changes(module, &place), self.factors.contains_key(name));
            // A pattern of the file may mean a head that PEFT did not change.
            let tied_head = base.head == Head::TiedLm && *name == ends[1];
            if said != there && (there || !tied_head) {
                let (has, says) = if there { ("holds", "does not name") } else { ("lacks", "names") };
                return Err(format!(
                    "{WEIGHTS} {has} factors of {module}, which {CONFIG} {says} (target_modules, exclude_modules, layers_to_transform){made_for}"
                ));
            }
            if self.config.replaces(module) && !self.whole.contains_key(name) {
                return Err(format!("{WEIGHTS} lacks {name}, which {CONFIG} names (modules_to_save)"));
            }
        }
        Ok(())
    }
}
