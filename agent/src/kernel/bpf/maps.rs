//! The maps of an object: created with the sizes and the values that the agent sets.

use std::{
    collections::{BTreeMap, HashMap as StdHashMap},
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    slice,
};

use anyhow::{Context as _, anyhow};
use aya::{
    Pod,
    maps::{Map, MapData},
};
use aya_obj::{EbpfSectionKind, generated::bpf_map_type};

use super::sys;

/// What an object leaves to whoever loads it.
#[derive(Debug, Default)]
pub struct Parameters<'a> {
    globals: Vec<(&'static str, &'a [u8])>,
    max_entries: Vec<(&'static str, u32)>,
}

impl<'a> Parameters<'a> {
    /// Sets a read-only global, which the object must have, of the same size.
    #[must_use]
    pub fn global<T: Pod>(mut self, name: &'static str, value: &'a T) -> Self {
        // SAFETY: what is Pod may be read as the bytes that it is.
        let bytes = unsafe {
            slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
        };
        self.globals.push((name, bytes));
        self
    }

    /// Sets how many entries a map holds.
    #[must_use]
    pub fn max_entries(mut self, map: &'static str, entries: u32) -> Self {
        self.max_entries.push((map, entries));
        self
    }

    /// Puts them into an object that was parsed.
    ///
    /// # Errors
    ///
    /// Where the object has no such global or map.
    pub(super) fn apply(&self, code: &mut aya_obj::Object) -> anyhow::Result<()> {
        let globals = self.globals.iter();
        let globals: StdHashMap<_, _> = globals
            .map(|(name, value)| (*name, (*value, true)))
            .collect();
        code.patch_map_data(globals)?;
        for (name, entries) in &self.max_entries {
            let map = code.maps.get_mut(*name);
            let map = map.ok_or_else(|| anyhow!("the BPF object has no map {name}"))?;
            map.set_max_entries(*entries);
        }
        Ok(())
    }
}

/// Creates the maps that an object defines, those behind its globals too.
///
/// # Errors
///
/// The kernel's error, with the name of the map.
pub(super) fn create(
    definitions: &StdHashMap<String, aya_obj::Map>,
) -> anyhow::Result<BTreeMap<String, Map>> {
    let create = |(name, definition): (&String, &aya_obj::Map)| {
        let map = create_one(name, definition).with_context(|| format!("create map {name}"))?;
        Ok((name.clone(), map))
    };
    definitions.iter().map(create).collect()
}

fn create_one(name: &str, definition: &aya_obj::Map) -> anyhow::Result<Map> {
    let mut definition = definition.clone();
    if definition.map_type() == bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32 {
        definition.set_max_entries(whole_pages(
            definition.max_entries(),
            rustix::param::page_size() as u32,
        ));
    }
    let (value, kind) = (definition.data().to_vec(), definition.section_kind());
    let map = MapData::create(definition, name, None)?;
    if !value.is_empty() {
        sys::set_entry(map.fd().as_fd(), 0, &value).context("set the globals")?;
    }
    if kind == EbpfSectionKind::Rodata {
        sys::freeze(map.fd().as_fd()).context("freeze the globals")?;
    }
    Ok(Map::from_map_data(map)?)
}

/// Bytes of a ring buffer: a power of two of pages (kernel/bpf/ringbuf.c,
/// `ringbuf_map_alloc`).
fn whole_pages(bytes: u32, page: u32) -> u32 {
    page * bytes.div_ceil(page).next_power_of_two()
}

/// A hash map of an object, read as a whole.
#[derive(Debug)]
pub struct HashMap<K, V> {
    map: Map,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashMap<K, V> {
    pub(super) const fn of(map: Map) -> Self {
        Self {
            map,
            types: PhantomData,
        }
    }

    /// All its entries, each once, as far as it holds still.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn read(&self) -> anyhow::Result<Vec<(K, V)>> {
        sys::read_map(descriptor(&self.map)?).context("read a map of the probes")
    }

    /// Takes an entry out; whether it was still there.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn remove(&self, key: &K) -> anyhow::Result<bool> {
        sys::delete_entry(descriptor(&self.map)?, key).context("delete from a map of the probes")
    }
}

pub(super) fn descriptor(map: &Map) -> anyhow::Result<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Ok(data.fd().as_fd()),
        other => Err(anyhow!("no probe uses maps like {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_buffer_is_a_power_of_two_of_pages() {
        for (bytes, whole) in [
            (0, 4096),
            (1, 4096),
            (4096, 4096),
            (4097, 8192),
            (3 * 4096, 4 * 4096),
        ] {
            assert_eq!(whole_pages(bytes, 4096), whole);
        }
        assert_eq!(whole_pages(4096, 65_536), 65_536);
    }
}
