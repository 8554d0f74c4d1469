#![no_main]

motrain_fuzz::target!(tokenizer);
