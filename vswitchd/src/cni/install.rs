//! Installation into the runtime: the plugin, and the network configuration that names it.
//!
//! A runtime takes a node's network for ready as soon as it can read a configuration, so it is
//! there only while that is true, whole from the first moment, and after the plugin.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vswitch_api::cni::DEFAULT_SOCKET;

/// The network configuration, with all chained plugins.
const TEMPLATE: &str = include_str!("../../../config/10-vswitch.conflist");

/// Its name; runtimes take the first one in alphabetical order.
const CONFLIST: &str = "10-vswitch.conflist";

/// Name of the plugin, as the configuration calls it.
const PLUGIN: &str = "vswitch-cni";

/// Files of the CNI that could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum CniFilesError {
    /// The plugin to be installed.
    #[error("read CNI plugin {path}")]
    ReadPlugin {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file.
    #[error("install {path}")]
    Install {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file.
    #[error("remove {path}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Where the files go. All methods block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniFiles {
    /// Where the network configuration is put, if it is.
    pub conf_dir: Option<PathBuf>,
    /// Where runtimes look for plugins.
    pub bin_dir: PathBuf,
    /// The plugin that is installed there, if one is.
    pub plugin: Option<PathBuf>,
    /// The daemon's socket.
    pub socket: PathBuf,
}

impl CniFiles {
    /// Installs the plugin, then the network configuration.
    ///
    /// # Errors
    /// [`CniFilesError`].
    pub fn install(&self) -> Result<(), CniFilesError> {
        if let Some((from, to)) = self.plugin() {
            let plugin = fs::read(from).map_err(|source| CniFilesError::ReadPlugin {
                path: from.to_owned(),
                source,
            })?;
            write_whole(&to, &plugin, 0o755)?;
        }
        if let Some(path) = self.conflist() {
            write_whole(&path, self.configuration().as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Removes the network configuration: until the next [`Self::install`] the node has none.
    ///
    /// # Errors
    /// [`CniFilesError::Remove`].
    pub fn withdraw(&self) -> Result<(), CniFilesError> {
        self.conflist().as_deref().map_or(Ok(()), remove)
    }

    /// Removes everything; returns what could not be removed.
    #[must_use]
    pub fn remove(&self) -> Vec<CniFilesError> {
        let plugin = self.plugin().map_or(Ok(()), |(_, to)| remove(&to));
        [self.withdraw(), plugin]
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    fn conflist(&self) -> Option<PathBuf> {
        self.conf_dir.as_ref().map(|folder| folder.join(CONFLIST))
    }

    /// From where to where the plugin is copied; not onto itself.
    fn plugin(&self) -> Option<(&Path, PathBuf)> {
        let (from, to) = (self.plugin.as_deref()?, self.bin_dir.join(PLUGIN));
        (from != to).then_some((from, to))
    }

    /// The template less the chained plugins that are not there.
    fn configuration(&self) -> String {
        let mut conf: Value = serde_json::from_str(TEMPLATE).expect("the template is JSON");
        if let Some(plugins) = conf["plugins"].as_array_mut() {
            plugins.retain(|plugin| {
                let name = plugin["type"].as_str().unwrap_or_default();
                name == PLUGIN || self.bin_dir.join(name).exists()
            });
            let own = plugins.iter_mut().find(|plugin| plugin["type"] == PLUGIN);
            if let Some(own) = own.filter(|_| self.socket != Path::new(DEFAULT_SOCKET)) {
                own["socket"] = json!(self.socket);
            }
        }
        format!("{conf:#}\n")
    }
}

/// Writes a file under another name, which no runtime reads, and gives it its own when it is whole
/// and on the disk.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), CniFilesError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".vswitchd-writing");
    let fresh = path.with_file_name(name);
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        // Whatever the umask says, runtimes may run as others.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| CniFilesError::Install {
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> Result<(), CniFilesError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CniFilesError::Remove {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> CniFiles {
        fs::write(folder.join("built"), "#!plugin").unwrap();
        CniFiles {
            conf_dir: Some(folder.join("net.d")),
            bin_dir: folder.join("bin"),
            plugin: Some(folder.join("built")),
            socket: "/run/other/api.sock".into(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn plugin_and_configuration_are_installed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        files.install().unwrap();
        assert_eq!(names(&folder.path().join("net.d")), [CONFLIST]);
        assert_eq!(names(&folder.path().join("bin")), [PLUGIN]);
        let plugin = folder.path().join("bin").join(PLUGIN);
        assert_eq!(fs::read(&plugin).unwrap(), b"#!plugin");
        let mode = fs::metadata(&plugin).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);

        files.withdraw().unwrap();
        assert!(names(&folder.path().join("net.d")).is_empty());
        assert!(plugin.exists());
        files.install().unwrap();
        assert!(files.remove().is_empty() && files.remove().is_empty());
        assert!(names(&folder.path().join("net.d")).is_empty());
        assert!(!plugin.exists());
    }

    #[test]
    fn chained_plugins_are_named_only_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let types = || -> Vec<String> {
            let conf: Value = serde_json::from_str(&files.configuration()).unwrap();
            assert_eq!(conf["plugins"][0]["socket"], "/run/other/api.sock");
            let plugins = conf["plugins"].as_array().unwrap().iter();
            plugins
                .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(types(), [PLUGIN]);
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/bandwidth"), "").unwrap();
        assert_eq!(types(), [PLUGIN, "bandwidth"]);
    }

    #[test]
    fn a_plugin_that_is_where_it_belongs_is_neither_copied_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        let plugin = folder.path().join(PLUGIN);
        fs::write(&plugin, "#!own").unwrap();
        files.bin_dir = folder.path().to_owned();
        files.plugin = Some(plugin.clone());
        files.install().unwrap();
        assert!(files.remove().is_empty());
        assert_eq!(fs::read(&plugin).unwrap(), b"#!own");
    }
}
