//! include/motrain.h is made from src/lib.rs; `cargo xtask codegen` remakes it.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let made = cbindgen::Builder::new().with_crate(root).with_config(config).generate().unwrap();
    let mut text = Vec::new();
    made.write(&mut text);
    let path = root.join("include/motrain.h");
    if std::env::var_os("MOTRAIN_CODEGEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read(&path).unwrap_or_default();
    assert!(found == text, "include/motrain.h is out of date; run: cargo xtask codegen");
}
