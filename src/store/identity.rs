//! The file `MLRS`: that a directory is a store, and which.
//!
//! Contract: written once, when the store is made. 40 bytes: magic `MLRSDB\n\0`, major u16, minor u16, 0 u32, store id
//! 16, 0 u32, crc32 of the first 36 bytes. Features live in each segment's header, not here.

use std::io;
use std::path::Path;

use crate::codec::bytes::Reader;
use crate::error::{Error, Result};
use crate::id::StoreId;
use crate::log::{LIVE_DIR, LOG_DIR};
use crate::vfs::{OpenMode, Vfs};

/// Name of the file.
pub(crate) const IDENTITY_FILE: &str = "MLRS";
const MAGIC: [u8; 8] = *b"MLRSDB\n\0";
const VERSION: u16 = 1;
const BYTES: usize = 40;

/// Reads who a store is; `None` if there is no such file.
///
/// # Errors
/// [`Error::Corrupt`] if the file is not what [`create`] wrote, [`Error::NewerFormat`].
pub(crate) fn read(vfs: &dyn Vfs, root: &Path) -> Result<Option<StoreId>> {
    let path = root.join(IDENTITY_FILE);
    let file = match vfs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        Err(e) => return Err(Error::io("open", &path, e)),
    };
    let mut bytes = [0u8; BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(|e| Error::io("read", &path, e))?;
    if read < BYTES {
        return Err(Error::corrupt(&path, read as u64, format!("{BYTES} bytes"), format!("{read}")));
    }
    let body = bytes.get(..BYTES - 4).unwrap_or_default();
    let mut cursor = Reader::new(&bytes);
    let malformed = |m: crate::error::Malformed| m.at(&path, 0);
    let magic: [u8; 8] = cursor.array().map_err(malformed)?;
    let major = cursor.u16().map_err(malformed)?;
    let _minor = cursor.u16().map_err(malformed)?;
    let _zero = cursor.u32().map_err(malformed)?;
    let id = StoreId::from_bytes(cursor.array().map_err(malformed)?);
    let _zero = cursor.u32().map_err(malformed)?;
    let crc = cursor.u32().map_err(malformed)?;
    if magic != MAGIC {
        let (expected, found) = (MAGIC.escape_ascii(), magic.escape_ascii());
        return Err(Error::corrupt(&path, 0, format!("'{expected}'"), format!("'{found}'")));
    }
    let expected = crc32fast::hash(body);
    if crc != expected {
        let (expected, found) = (format!("crc {expected:08x}"), format!("{crc:08x}"));
        return Err(Error::corrupt(&path, BYTES as u64 - 4, expected, found));
    }
    if major > VERSION {
        return Err(Error::NewerFormat {
            path,
            what: "the store",
            found: major.to_string(),
            supported: VERSION.to_string(),
        });
    }
    Ok(Some(id))
}

/// The content of the file.
pub(crate) fn encode(id: StoreId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Makes a store of a directory, durably. If somebody else does so at the same time, one wins and both get its id.
pub(crate) fn create(vfs: &dyn Vfs, root: &Path) -> Result<StoreId> {
    let id = StoreId::random()?;
    // The folders, too, are made and synced now: a segment that was synced must not hang in a folder that was not.
    let ancestors = root.ancestors().take_while(|p| !p.as_os_str().is_empty() && vfs.metadata(p).is_err());
    let made: Vec<&Path> = ancestors.collect();
    for folder in [root.join(LOG_DIR), root.join(LIVE_DIR), root.join("artifacts")] {
        vfs.create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    }
    for parent in made.iter().filter_map(|folder| folder.parent()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        vfs.sync_dir(parent).map_err(|e| Error::failed_sync(parent, e))?;
    }
    write(vfs, root, id)?;
    read(vfs, root)?.ok_or_else(|| Error::not_found("store", root.display().to_string()))
}

/// Writes the file, durably, if there is none.
pub(crate) fn write(vfs: &dyn Vfs, root: &Path, id: StoreId) -> Result<()> {
    let bytes = encode(id);
    // Written aside and linked, so that nobody ever sees half of it.
    let aside = root.join(format!("{IDENTITY_FILE}.{}", crate::id::Uid::random()?));
    let file = vfs.open(&aside, OpenMode::CreateNew).map_err(|e| Error::io("create", &aside, e))?;
    file.write_all_at(&bytes, 0).map_err(|e| Error::io("write", &aside, e))?;
    file.sync_data().map_err(|e| Error::failed_sync(&aside, e))?;
    let path = root.join(IDENTITY_FILE);
    let linked = vfs.hard_link(&aside, &path);
    let removed = vfs.remove_file(&aside);
    match linked {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Error::io("create", &path, e)),
    }
    removed.map_err(|e| Error::io("remove", &aside, e))?;
    vfs.sync_dir(root).map_err(|e| Error::failed_sync(root, e))?;
    Ok(())
}

/// Whether a name is that of a file which was to become `MLRS`.
pub(crate) fn is_aside(name: &str) -> bool {
    let id = name.strip_prefix(IDENTITY_FILE).and_then(|rest| rest.strip_prefix('.'));
    id.is_some_and(|id| id.parse::<crate::id::Uid>().is_ok())
}
