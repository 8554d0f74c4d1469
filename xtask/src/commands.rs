use anyhow::Result;
pub fn doctor() -> Result<()> { Ok(()) }
pub fn demo(_: &str) -> Result<()> { Ok(()) }
pub fn test(_: bool, _: &[String]) -> Result<()> { Ok(()) }
pub fn bench(_: &[String]) -> Result<()> { Ok(()) }
pub fn bootstrap(_: Option<&str>) -> Result<()> { Ok(()) }
