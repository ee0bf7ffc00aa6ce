//! Frames: what is written to a file of the journal as one, and is there as a whole or not at all.
//!
//! ```text
//! length (4 bytes) | CRC-32 (4) | synced (8) | records (length)
//! ```
//!
//! The CRC covers all that follows it, and the length. `synced` is up to where the file was known to be on disk when
//! the frame was made. It distinguishes a torn end from damage: a bad frame was acknowledged if a later one says
//! that it had been on disk.

/// What stands in front of a frame's records.
pub const HEADER: usize = 16;

/// Makes a frame of records.
pub fn write(records: &[u8], synced: u64, into: &mut Vec<u8>) {
    let length = u32::try_from(records.len()).expect("a frame is bounded by what one step of the store can do");
    let rest = [&synced.to_le_bytes()[..], records];
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&checksum(length, &rest).to_le_bytes());
    rest.iter().for_each(|part| into.extend_from_slice(part));
}

/// A sound frame, and where the next one begins.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub synced: u64,
    pub records: &'a [u8],
    pub next: usize,
}

/// The frame that begins at `at`, if a sound one does.
pub fn read(file: &[u8], at: usize) -> Option<Frame<'_>> {
    let (header, rest) = file.get(at..)?.split_at_checked(HEADER)?;
    let number = |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
    let (length, crc) = (number(0), number(4));
    let records = rest.get(..length as usize).filter(|records| !records.is_empty())?;
    let synced = &header[8..];
    (checksum(length, &[synced, records]) == crc).then(|| Frame {
        synced: u64::from_le_bytes(synced.try_into().expect("it has 8 bytes")),
        records,
        next: at + HEADER + records.len(),
    })
}

/// Whether a sound frame after `at` says that the file was on disk beyond `at`. Only asked where reading ends.
pub fn was_synced(file: &[u8], at: usize) -> bool {
    let mut next = at + 1;
    while next + HEADER < file.len() {
        match read(file, next) {
            Some(frame) if frame.synced > at as u64 => return true,
            Some(frame) => next = frame.next,
            None => next += 1,
        }
    }
    false
}

fn checksum(length: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(frames: &[(&[u8], u64)]) -> Vec<u8> {
        let mut file = Vec::new();
        frames.iter().for_each(|(records, synced)| write(records, *synced, &mut file));
        file
    }

    #[test]
    fn a_frame_is_read_back_and_one_with_any_bit_changed_is_none() {
        let sound = file(&[(b"some records", 7)]);
        let expected = Frame { synced: 7, records: b"some records", next: sound.len() };
        assert_eq!(read(&sound, 0), Some(expected));
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, 0), None, "bit {bit}");
        }
        assert!((0..sound.len()).all(|end| read(&sound[..end], 0).is_none()));
        assert_eq!(read(&[0; 64], 0), None, "room that is not used yet");
    }

    #[test]
    fn a_bad_frame_that_was_on_disk_is_told_from_a_torn_one() {
        let first = file(&[(b"first", 0)]).len();
        for (synced, was) in [(0, false), (first as u64, true)] {
            let mut frames = file(&[(b"first", 0), (b"second", synced)]);
            frames[HEADER] ^= 1;
            assert_eq!(was_synced(&frames, 0), was);
        }
    }
}
