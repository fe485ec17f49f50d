//! Copies of a store's files while it is written: what `backup` and `merge` share.
//!
//! Contract: the source is read against the flow of data, live windows first, then segments to the end found then; so
//! every point that was acknowledged before is in one or the other, and the copies join. The target is written with
//! the flow: segments, durably, then live files, then what is not needed any more. Each file arrives under a name of
//! its own and is renamed; nothing longer is ever replaced by something shorter. The source is only read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::segment::FOOTER_FRAME_BYTES;
use crate::id::{SegmentId, Uid, WriterId};
use crate::log::{
    LIVE_DIR, LOG_DIR, LogReader, Segment, SegmentState, View, live_image, live_path, read_live_window,
    read_live_windows, segment_path,
};
use crate::store::Inner;
use crate::store::artifacts::create_dirs_durably;
use crate::store::report::{CopyReport, Finding, Progress, Severity};
use crate::vfs::{OpenMode, Vfs};

/// How often a look at the source is repeated until it joins.
const LOOKS_MAX: usize = 3;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Folder of artifacts.
pub(super) const ARTIFACTS_DIR: &str = "artifacts";
/// Extension of an artifact that is being written.
const PART: &str = "part-";

/// A live file to be written.
struct Image {
    writer: WriterId,
    /// The sequence after its last record.
    end: u64,
    points: u64,
    bytes: Vec<u8>,
}

/// The files of a store at one moment.
pub(super) struct Source {
    root: PathBuf,
    view: Arc<View>,
    images: Vec<Image>,
}

/// Where copies go.
pub(super) struct Target<'a> {
    pub vfs: &'a Arc<dyn Vfs>,
    pub root: &'a Path,
    /// What is damaged in the source is left out, rather than copied as it is.
    pub refuse_damage: bool,
    pub dry_run: bool,
}

/// What becomes of one segment.
enum Verdict {
    Copy,
    Known,
    Clash,
}

impl Source {
    /// Looks at a store.
    pub(super) fn take(inner: &Inner) -> Result<Self> {
        let live_dir = inner.root.join(LIVE_DIR);
        let mut look = 1;
        loop {
            let windows = read_live_windows(inner.vfs.as_ref(), &live_dir)?;
            let view = inner.reader.refresh_whole()?;
            let mut images = Vec::with_capacity(windows.len());
            let mut joins_all = true;
            for window in &windows {
                let (covered, joins) = view.covered(window)?;
                joins_all &= joins;
                let (records, _) = window.joined(covered);
                // Without the frames before it, it stays what it is: waiting for them.
                let from = if joins { covered } else { window.released };
                let records = if joins { records } else { window.joined(from).0 };
                if !records.is_empty() {
                    images.push(Image {
                        writer: window.header.writer,
                        end: from + records.len() as u64,
                        points: records.len() as u64,
                        bytes: live_image(window, from, records),
                    });
                }
            }
            if joins_all || look == LOOKS_MAX {
                return Ok(Self { root: inner.root.clone(), view, images });
            }
            look += 1;
        }
    }

    /// Copies everything but artifacts.
    pub(super) fn copy_log(
        &self,
        target: &Target<'_>,
        report: &mut CopyReport,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<()> {
        let problems = self.view.problems.iter();
        report.problems.extend(problems.map(|p| self.finding(&p.path, p.text.clone())));
        let log_dir = target.root.join(LOG_DIR);
        let reader = LogReader::new(Arc::clone(target.vfs), target.root);
        let replaced = replaced_by(reader.refresh_whole()?.as_ref());
        let total = self.view.segments.iter().map(|(_, state)| state.valid_len).sum();
        let mut now = Progress { bytes_total: total, ..Progress::default() };
        for (segment, state) in &self.view.segments {
            let is_held = replaced.get(&segment.header.id).is_some_and(|one| state.is_within(*one));
            let verdict = if is_held { Verdict::Known } else { verdict(target, segment, state)? };
            match verdict {
                Verdict::Known => report.segments_known += 1,
                Verdict::Clash => {
                    let text = "has the name of another segment in the target: it was not copied";
                    report.problems.push(self.finding(&segment.path, text.into()));
                }
                Verdict::Copy => {
                    let damage = damage_of(segment, state);
                    let refused = damage.is_some() && target.refuse_damage;
                    let copied = refused || self.copy_segment(target, &log_dir, segment, state)?;
                    if let Some(text) = damage.or((!copied).then(|| "is not what its digest says".into())) {
                        report.problems.push(self.finding(&segment.path, text));
                    }
                    if !refused && (copied || !target.refuse_damage) {
                        report.segments += 1;
                        report.bytes += state.valid_len;
                    }
                }
            }
            now.bytes_done += state.valid_len;
            progress(&now);
        }
        if !target.dry_run {
            target.vfs.sync_dir(&log_dir).map_err(|e| Error::failed_sync(&log_dir, e))?;
        }
        self.copy_live(target, report)
    }

    fn finding(&self, path: &Path, text: String) -> Finding {
        let path = path.strip_prefix(&self.root).unwrap_or(path).to_path_buf();
        Finding { severity: Severity::Damage, path, offset: None, text }
    }

    /// Copies the part of a segment that counts; through the open file, so that it may be sealed or removed meanwhile.
    /// Returns whether its digest fits; without that it is not kept where damage is refused.
    fn copy_segment(
        &self,
        target: &Target<'_>,
        log_dir: &Path,
        segment: &Segment,
        state: &SegmentState,
    ) -> Result<bool> {
        if target.dry_run {
            return Ok(true);
        }
        let path = segment_path(log_dir, segment.header.writer, segment.header.number);
        // `gc` knows it by its end, should it be left.
        let aside = path.with_extension(format!("{}.seg.tmp", Uid::random()?));
        let written = write_aside(target.vfs.as_ref(), &aside, |file| {
            let mut hasher = blake3::Hasher::new();
            let hashed_to = state.valid_len.saturating_sub(FOOTER_FRAME_BYTES as u64);
            let mut at = 0;
            while at < state.valid_len {
                let end = if at < hashed_to { hashed_to } else { state.valid_len };
                let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let bytes = segment.read(at, len)?;
                if at < hashed_to {
                    hasher.update(&bytes);
                }
                file.write_all_at(&bytes, at).map_err(|e| Error::io("write", &aside, e))?;
                at += len as u64;
            }
            let digest = *hasher.finalize().as_bytes();
            Ok(state.footer.is_none_or(|footer| footer.digest == digest))
        });
        let keep = match &written {
            Ok(fits) => *fits || !target.refuse_damage,
            Err(_) => false,
        };
        if keep {
            target.vfs.rename(&aside, &path).map_err(|e| Error::io("rename", &aside, e))?;
        } else {
            let _ = target.vfs.remove_file(&aside);
        }
        written
    }

    fn copy_live(&self, target: &Target<'_>, report: &mut CopyReport) -> Result<()> {
        let live_dir = target.root.join(LIVE_DIR);
        for image in &self.images {
            let path = live_path(&live_dir, image.writer);
            let known = read_live_window(target.vfs.as_ref(), &path).ok().flatten();
            let known_end = known.map_or(0, |w| w.records.last().map_or(w.released, |r| r.sequence + 1));
            let lock = target.vfs.open(&path, OpenMode::ReadWrite).and_then(|file| file.try_lock());
            // A file whose writer lives here, or that holds more, is not ours to replace.
            if known_end > image.end || matches!(lock, Ok(None)) {
                continue;
            }
            report.live_files += 1;
            report.live_points += image.points;
            report.bytes += image.bytes.len() as u64;
            if target.dry_run {
                continue;
            }
            let aside = live_dir.join(format!(".{}.part", Uid::random()?));
            write_aside(target.vfs.as_ref(), &aside, |file| {
                file.write_all_at(&image.bytes, 0).map_err(|e| Error::io("write", &aside, e))
            })?;
            target.vfs.rename(&aside, &path).map_err(|e| Error::io("rename", &aside, e))?;
        }
        if !target.dry_run {
            target.vfs.sync_dir(&live_dir).map_err(|e| Error::failed_sync(&live_dir, e))?;
        }
        Ok(())
    }

    /// Removes from the target what its other files hold in full: segments that were folded, live files of writers that
    /// ended.
    pub(super) fn remove_covered(&self, target: &Target<'_>, report: &mut CopyReport) -> Result<()> {
        let kept: Vec<WriterId> = self.images.iter().map(|image| image.writer).collect();
        let windows = read_live_windows(target.vfs.as_ref(), &target.root.join(LIVE_DIR))?;
        let view = LogReader::new(Arc::clone(target.vfs), target.root).refresh_whole()?;
        let mut covered: Vec<PathBuf> = Vec::new();
        for segment in view.replaced_segments() {
            if !view.replacements(&segment).is_empty() {
                covered.push(segment.path.clone());
            }
        }
        for window in windows.iter().filter(|w| !kept.contains(&w.header.writer)) {
            let (to, joins) = view.covered(window)?;
            let (records, behind) = window.joined(to);
            if joins && records.is_empty() && behind == 0 {
                covered.push(window.path.clone());
            }
        }
        for path in covered {
            target.vfs.remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
            report.files_removed += 1;
        }
        Ok(())
    }

    /// Copies artifacts that the target lacks, or has in an older form; but for runs that are `purged`.
    pub(super) fn copy_artifacts(
        &self,
        target: &Target<'_>,
        purged: &dyn Fn(Uid) -> bool,
        report: &mut CopyReport,
    ) -> Result<()> {
        let from = self.root.join(ARTIFACTS_DIR);
        let to = target.root.join(ARTIFACTS_DIR);
        for experiment in list(target.vfs.as_ref(), &from)? {
            let (from, to) = (from.join(&experiment), to.join(&experiment));
            for run in list(target.vfs.as_ref(), &from)? {
                if !run.parse::<Uid>().is_ok_and(purged) {
                    copy_tree(target, &from.join(&run), &to.join(&run), report)?;
                }
            }
        }
        Ok(())
    }
}

fn damage_of(segment: &Segment, state: &SegmentState) -> Option<String> {
    let damage = segment.header_damage.as_ref().or(state.damage.first())?;
    Some(format!(
        "is damaged at byte {}: expected {}, found {}",
        damage.offset, damage.expected, damage.found
    ))
}

/// What closed segments of a store hold of others.
fn replaced_by(view: &View) -> HashMap<SegmentId, (u64, u32)> {
    let mut all: HashMap<SegmentId, (u64, u32)> = HashMap::new();
    for state in view.all_segments().map(|s| s.state()).filter(|state| state.footer.is_some()) {
        for one in state.replaced.iter() {
            let longest = all.entry(one.id).or_default();
            *longest = (*longest).max((one.valid_len, one.last_crc));
        }
    }
    all
}

fn verdict(target: &Target<'_>, segment: &Segment, state: &SegmentState) -> Result<Verdict> {
    let path = segment_path(&target.root.join(LOG_DIR), segment.header.writer, segment.header.number);
    let known = match Segment::open(target.vfs.as_ref(), &path) {
        Ok(known) => known,
        // Not there, or nothing that could be kept.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Verdict::Copy);
        }
        Err(Error::TornTail { .. } | Error::Corrupt { .. }) => return Ok(Verdict::Copy),
        Err(error) => return Err(error),
    };
    let there = known.state();
    let holds = |holder: &SegmentState, id: SegmentId, of: &SegmentState| {
        let mut named = holder.replaced.iter().filter(|one| one.id == id);
        holder.footer.is_some() && named.any(|one| of.is_within((one.valid_len, one.last_crc)))
    };
    Ok(if known.header.id == segment.header.id {
        let is_same = there.footer == state.footer || state.footer.is_none();
        let is_whole = there.valid_len >= state.valid_len && damage_of(&known, &there).is_none();
        if is_same && is_whole { Verdict::Known } else { Verdict::Copy }
    } else if holds(&there, segment.header.id, state) {
        Verdict::Known
    } else if holds(state, known.header.id, &there) {
        Verdict::Copy
    } else {
        Verdict::Clash
    })
}

/// Creates a file, has it written, and makes it durable; what failed is removed.
fn write_aside<T>(
    vfs: &dyn Vfs,
    aside: &Path,
    write: impl FnOnce(&dyn crate::vfs::VfsFile) -> Result<T>,
) -> Result<T> {
    let file = vfs.open(aside, OpenMode::CreateNew).map_err(|e| Error::io("create", aside, e))?;
    let written = write(file.as_ref())
        .and_then(|done| file.sync_data().map(|()| done).map_err(|e| Error::failed_sync(aside, e)));
    written.inspect_err(|_| {
        let _ = vfs.remove_file(aside);
    })
}

fn list(vfs: &dyn Vfs, folder: &Path) -> Result<Vec<String>> {
    match vfs.list(folder) {
        Ok(entries) => Ok(entries.into_iter().filter(|e| e.is_dir).map(|e| e.name).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("list", folder, e)),
    }
}

/// Copies a folder's files; links to folders are not followed.
fn copy_tree(target: &Target<'_>, from: &Path, to: &Path, report: &mut CopyReport) -> Result<()> {
    let vfs = target.vfs.as_ref();
    let entries = match vfs.list(from) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", from, e)),
    };
    let mut any = false;
    for entry in entries {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_dir {
            if !vfs.is_symlink(&from) {
                copy_tree(target, &from, &to, report)?;
            }
            continue;
        }
        let is_part = from.extension().and_then(|e| e.to_str()).is_some_and(|e| e.starts_with(PART));
        // Removed meanwhile, or a link that leads nowhere.
        let Some(source) = vfs.metadata(&from).ok().filter(|_| !is_part) else { continue };
        let is_known =
            vfs.metadata(&to).is_ok_and(|m| m.len == source.len && m.modified_ms >= source.modified_ms);
        if is_known {
            report.artifacts_known += 1;
            continue;
        }
        if !target.dry_run {
            if !any && let Some(parent) = to.parent() {
                create_dirs_durably(vfs, parent)?;
            }
            let aside = to.with_extension(format!("{PART}{}", Uid::random()?));
            match vfs.copy_file(&from, &aside) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                copied => copied.map_err(|e| Error::io("copy", &from, e))?,
            }
            let file = vfs.open(&aside, OpenMode::Read).map_err(|e| Error::io("open", &aside, e))?;
            file.sync_data().map_err(|e| Error::failed_sync(&aside, e))?;
            vfs.rename(&aside, &to).map_err(|e| Error::io("rename", &aside, e))?;
            any = true;
        }
        report.artifacts += 1;
        report.bytes += source.len;
    }
    if any {
        vfs.sync_dir(to).map_err(|e| Error::failed_sync(to, e))?;
    }
    Ok(())
}
