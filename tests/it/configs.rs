//! The config files that we ship are valid: whoever copies one starts from something that runs.

use std::collections::HashMap;
use std::path::Path;

use verdict_relay::config::Config;

#[test]
fn every_config_that_we_ship_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = 0;
    for entry in folder.read_dir().expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let plan = Config::layered(std::slice::from_ref(&path), &HashMap::new()).map(Config::plan);
            assert!(matches!(plan, Ok(Ok(_))), "{}: {plan:?}", path.display());
            files += 1;
        }
    }
    assert!(files > 1, "the folder holds at least the quick start and the one of docker-compose.yml");
}
