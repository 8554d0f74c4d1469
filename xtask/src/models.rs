use anyhow::Result; pub fn fetch(_: &str) -> Result<()> { Ok(()) }
