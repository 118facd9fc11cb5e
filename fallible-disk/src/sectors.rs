//! The bytes of a file: what was written, and what of it is on the disk.

use std::collections::BTreeMap;

use crate::lot::Lot;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// How many versions of a sector may have reached the disk, besides what was synced: the last ones.
const MAX_VERSIONS: usize = 8;

type Sector = [u8; SECTOR_BYTES];

#[derive(Debug, Default)]
pub(crate) struct Sectors {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Each sector's versions since the last sync, oldest first.
    unsynced: BTreeMap<usize, Vec<Sector>>,
    lengths: Vec<usize>,
}

impl Sectors {
    /// What is on the disk.
    pub(crate) fn durable(bytes: Vec<u8>) -> Self {
        Self { written: bytes.clone(), durable: bytes, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.written.len()
    }

    pub(crate) fn read(&self, offset: usize, length: usize) -> &[u8] {
        let end = offset.saturating_add(length).min(self.len());
        self.written.get(offset..end).unwrap_or_default()
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.len() {
            self.resize(end);
        }
        self.written[offset..end].copy_from_slice(bytes);
        self.note(offset, end);
    }

    pub(crate) fn resize(&mut self, length: usize) {
        let before = self.len();
        self.written.resize(length, 0);
        self.lengths.push(length);
        if length < before {
            // Where it grows again, it reads as zeros.
            self.note(length, before);
        }
    }

    fn note(&mut self, from: usize, to: usize) {
        for number in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            let sector = self.sector(number);
            let versions = self.unsynced.entry(number).or_default();
            if versions.len() == MAX_VERSIONS {
                versions.remove(0);
            }
            versions.push(sector);
        }
    }

    fn sector(&self, number: usize) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        let bytes = self.read(number * SECTOR_BYTES, SECTOR_BYTES);
        sector[..bytes.len()].copy_from_slice(bytes);
        sector
    }

    pub(crate) fn sync(&mut self) {
        self.durable.resize(self.written.len(), 0);
        for number in std::mem::take(&mut self.unsynced).into_keys() {
            let sector = self.sector(number);
            put(&mut self.durable, number, &sector);
        }
        self.lengths.clear();
    }

    /// A sync that fails: some of it arrived, the rest is forgotten.
    pub(crate) fn fail_sync(&mut self, lot: &mut Lot) {
        self.durable = self.after_power_loss(lot);
        self.unsynced.clear();
        self.lengths.clear();
    }

    pub(crate) fn after_power_loss(&self, lot: &mut Lot) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        bytes.resize(lot.which(&self.lengths).copied().unwrap_or(bytes.len()), 0);
        for (number, versions) in &self.unsynced {
            if let Some(sector) = lot.which(versions) {
                put(&mut bytes, *number, sector);
            }
        }
        bytes
    }
}

/// Puts a sector in its place, as far as the file reaches.
fn put(bytes: &mut [u8], number: usize, sector: &Sector) {
    let from = number * SECTOR_BYTES;
    let to = (from + SECTOR_BYTES).min(bytes.len());
    if from < to {
        bytes[from..to].copy_from_slice(&sector[..to - from]);
    }
}
