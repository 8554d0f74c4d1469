#![no_main]

motrain_fuzz::target!(rows);
