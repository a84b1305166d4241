//! The slab folder: where it is, what its files are called, and the lock by which a living incarnation is known.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{StatFs, statfs};
use rustix::process::getuid;

use super::header::Identity;
use crate::principal::{Incarnation, StoreId};
use crate::time::Hour;

pub const SLAB: &str = "slab";
pub const UNFINISHED: &str = "new";
pub const ALIVE: &str = "alive";

const SHARED_MEMORY: &str = "/dev/shm";
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Less than this free, in bytes, and a tmpfs is not taken by default: two hours of a small gateway with some growth.
const ROOM: u64 = 16 << 20;

/// The folder cannot be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error(
        "cannot make the slab folder {path}: {source}. Make it by hand, or set meter.slab_dir to a writable folder on a tmpfs"
    )]
    Make { path: PathBuf, source: io::Error },
    #[error("the slab folder {path} belongs to somebody else or is open to others. Remove it, or set meter.slab_dir")]
    NotOurs { path: PathBuf },
}

/// A slab folder that exists, and what its operator should know about it.
#[derive(Debug)]
pub struct SlabFolder {
    pub path: PathBuf,
    /// It is ours alone, in shared memory, and goes when it is empty.
    pub in_memory: bool,
    pub warning: Option<String>,
}

impl SlabFolder {
    /// `explicit` as it is; else `/dev/shm/tollgate-<uid>/<store id>` where that is a tmpfs with room; else `spool`, with a
    /// warning, since write-back to a disk can stall a store into a mapped page.
    pub fn choose(explicit: Option<&Path>, spool: &Path, store_id: StoreId) -> Result<Self, FolderError> {
        if let Some(path) = explicit {
            make(path)?;
            return Ok(Self { path: path.to_owned(), in_memory: false, warning: None });
        }
        let memory = Path::new(SHARED_MEMORY);
        if has_room(memory) {
            let owned = memory.join(format!("tollgate-{}", getuid().as_raw()));
            make(&owned)?;
            check_owner(&owned)?;
            let path = owned.join(store_id.to_string());
            make(&path)?;
            return Ok(Self { path, in_memory: true, warning: None });
        }
        make(spool)?;
        let warning = format!(
            "{SHARED_MEMORY} is not a tmpfs with {} MiB free, so usage is counted in {}: write-back to a disk can delay calls. \
             Mount a tmpfs and set meter.slab_dir to it",
            ROOM >> 20,
            spool.display()
        );
        Ok(Self { path: spool.to_owned(), in_memory: false, warning: Some(warning) })
    }
}

/// `<incarnation>-<hour>-<shard>-<extent>.slab`.
pub fn slab_name(of: &Identity) -> String {
    format!("{}-{}-{}-{}.{SLAB}", of.incarnation, of.hour.0, of.shard, of.extent)
}

/// Which incarnation and hour a slab's name speaks of.
pub fn read_slab_name(path: &Path) -> Option<(Incarnation, Hour)> {
    let mut parts = path.file_stem()?.to_str()?.split('-');
    let named = (parts.next()?.parse().ok()?, Hour(parts.next()?.parse().ok()?));
    let (_shard, _extent): (u16, u16) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(named)
}

pub fn alive_path(folder: &Path, incarnation: Incarnation) -> PathBuf {
    folder.join(format!("{incarnation}.{ALIVE}"))
}

/// Takes the lock by which others know that `incarnation` is alive. It has its name only once it is locked.
pub fn declare_alive(folder: &Path, incarnation: Incarnation) -> io::Result<File> {
    let path = alive_path(folder, incarnation);
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let unfinished = path.with_extension(format!("{ALIVE}-{UNFINISHED}"));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.try_lock()?;
    fs::rename(unfinished, path)?;
    Ok(file)
}

/// Takes the lock of an incarnation that is dead, so that nobody else buries it. `None`: it is alive, or somebody else does.
pub fn lock_dead(folder: &Path, incarnation: Incarnation) -> io::Result<Option<File>> {
    let path = alive_path(folder, incarnation);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between open and lock its last holder may have removed the file; a lock on that one is worth nothing.
    let there = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        there => there?,
    };
    Ok((there.ino() == file.metadata()?.ino()).then_some(file))
}

/// Whether somebody holds the lock of this incarnation. Where it cannot be told, nobody does.
pub fn is_alive(folder: &Path, incarnation: Incarnation) -> bool {
    let file = File::open(alive_path(folder, incarnation));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn make(path: &Path) -> Result<(), FolderError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| FolderError::Make { path: path.to_owned(), source })
}

/// Everybody may write into `/dev/shm`, so a folder that is already there may be a trap.
fn check_owner(path: &Path) -> Result<(), FolderError> {
    let found = fs::symlink_metadata(path).map_err(|source| FolderError::Make { path: path.to_owned(), source })?;
    let ours = found.is_dir() && found.uid() == getuid().as_raw() && found.mode() & 0o077 == 0;
    if ours { Ok(()) } else { Err(FolderError::NotOurs { path: path.to_owned() }) }
}

fn has_room(path: &Path) -> bool {
    statfs(path).is_ok_and(|of: StatFs| of.f_type == TMPFS_MAGIC && free_bytes(&of) >= ROOM)
}

fn free_bytes(of: &StatFs) -> u64 {
    of.f_bavail.saturating_mul(u64::try_from(of.f_bsize).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            store_id: StoreId([1; 10]),
            boot_id: [2; 16],
            incarnation: Incarnation([3; 10]),
            hour: Hour(492_000),
            shard: 7,
            extent: 1,
            capacity: 4,
        }
    }

    #[test]
    fn a_slab_name_tells_its_incarnation_and_hour() {
        let name = slab_name(&identity());
        assert_eq!(read_slab_name(Path::new(&name)), Some((Incarnation([3; 10]), Hour(492_000))));
        for bad in
            ["x.slab".into(), name.replace("gw_", "sto_"), name.replace("-1.", "-1-1."), name.replace("-7-", "-x-")]
        {
            assert_eq!(read_slab_name(Path::new(&bad)), None, "{bad}");
        }
    }

    #[test]
    fn an_explicit_folder_is_made_private_and_used_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let wanted = root.path().join("a/b");
        let chosen = SlabFolder::choose(Some(&wanted), root.path(), StoreId([1; 10])).unwrap();
        assert_eq!(chosen.path, wanted);
        assert!(chosen.warning.is_none());
        assert_eq!(fs::metadata(&wanted).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let error = SlabFolder::choose(Some(&file.join("x")), root.path(), StoreId([1; 10])).unwrap_err();
        assert!(error.to_string().contains("meter.slab_dir"), "{error}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        make(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(check_owner(&real).is_ok());
        assert!(matches!(check_owner(&link), Err(FolderError::NotOurs { .. })));
        fs::set_permissions(&real, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(check_owner(&real), Err(FolderError::NotOurs { .. })));
    }

    #[test]
    fn the_lock_of_the_living_is_exclusive_and_ends_with_its_file() {
        let root = tempfile::tempdir().unwrap();
        let one = Incarnation([3; 10]);
        let alive = declare_alive(root.path(), one).unwrap();
        assert!(lock_dead(root.path(), one).unwrap().is_none());
        assert!(is_alive(root.path(), one));
        assert!(declare_alive(root.path(), one).is_err());
        drop(alive);
        assert!(!is_alive(root.path(), one));
        assert!(lock_dead(root.path(), one).unwrap().is_some());
        assert!(declare_alive(root.path(), one).is_err(), "an incarnation lives once");
    }
}
