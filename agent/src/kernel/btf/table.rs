//! Types in the format of BTF, read where they lie (Documentation/bpf/btf.rst,
//! include/uapi/linux/btf.h).

use std::ops::Range;

use anyhow::{Context as _, ensure};

use super::contents::Contents;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// Bytes of `struct btf_header` up to where its strings are.
const HEADER: usize = 24;

/// The same with where its layout is, which newer kernels append.
const HEADER_WITH_LAYOUT: usize = 32;

/// Bytes of `struct btf_type`, which all types begin with.
const COMMON: usize = 12;

/// Types, each found by its id: of vmlinux, or of a module on top of those.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Contents,
    sections: Sections,
    /// Where each type is, in the order of their ids.
    places: Vec<u32>,
    /// The first of its ids. Those below are another table's; 0 is `void`, which is in none.
    first_id: u32,
    /// What its first string is numbered by. Those below are another table's.
    first_string: u32,
}

/// Where what is in the bytes.
#[derive(Clone, Debug)]
struct Sections {
    types: Range<usize>,
    strings: Range<usize>,
    /// How large each kind is, where the kernel says so.
    layout: Range<usize>,
}

/// A type as it lies in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'t> {
    pub(super) kind: Kind,
    /// Number of its name.
    pub(super) name: u32,
    /// Bytes of a value, or the id of the type that this one refers to: by its kind.
    pub(super) size_or_type: u32,
    flag: bool,
    /// What its kind adds.
    rest: &'t [u8],
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StructMember {
    /// Number of its name.
    pub(super) name: u32,
    /// Id of its type.
    pub(super) type_id: u32,
    /// Distance from the structure's begin, bits.
    pub(super) bit_offset: u32,
}

/// Kinds of type, `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Pointer,
    Array,
    Struct,
    Union,
    Enum,
    Forward,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Function,
    Prototype,
    Variable,
    Section,
    Float,
    DeclarationTag,
    TypeTag,
    Enum64,
    /// One that came later.
    Unknown,
}

impl Kind {
    const fn of(number: u32) -> Self {
        match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Function,
            13 => Self::Prototype,
            14 => Self::Variable,
            15 => Self::Section,
            16 => Self::Float,
            17 => Self::DeclarationTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => Self::Unknown,
        }
    }

    /// Bytes that it adds to what all types have, by itself and for each element.
    const fn rest(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::Int | Self::Variable | Self::DeclarationTag => (4, 0),
            Self::Array => (12, 0),
            Self::Struct | Self::Union | Self::Section | Self::Enum64 => (0, 12),
            Self::Enum | Self::Prototype => (0, 8),
            Self::Pointer
            | Self::Forward
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Function
            | Self::Float
            | Self::TypeTag => (0, 0),
            Self::Unknown => return None,
        })
    }
}

impl Table {
    /// Takes the content of a file of `/sys/kernel/btf`. That of a module goes on numbering
    /// where its base ends.
    ///
    /// # Errors
    ///
    /// What is wrong with it. A kind of unknown size is an error too, as nothing after it can
    /// be read.
    pub(super) fn parse(bytes: Contents, base: Option<&Self>) -> anyhow::Result<Self> {
        ensure!(u32::try_from(bytes.len()).is_ok(), "it is too large");
        let sections = Sections::find(&bytes)?;
        // A module may need no more names than vmlinux has.
        let end = bytes[sections.strings.clone()].last();
        ensure!(end.is_none_or(|end| *end == 0), "its strings have no end");
        Ok(Self {
            places: places(&bytes, &sections)?,
            first_id: base.map_or(1, Self::end_of_ids),
            first_string: base.map_or(0, Self::end_of_strings),
            sections,
            bytes,
        })
    }

    /// Its types, each with its id, in their order.
    pub(super) fn types(&self) -> impl Iterator<Item = (u32, Type<'_>)> {
        let types = (self.first_id..).zip(&self.places);
        types.filter_map(|(id, place)| Some((id, self.at(*place)?)))
    }

    /// The type of an id, if it is one of its own.
    pub(super) fn get(&self, id: u32) -> Option<Type<'_>> {
        let index = id.checked_sub(self.first_id)?;
        self.at(*self.places.get(index as usize)?)
    }

    /// The text from a string on, if it is one of its own: the string, a zero, and what comes
    /// after.
    pub(super) fn text(&self, string: u32) -> Option<&[u8]> {
        let offset = string.checked_sub(self.first_string)?;
        let text = self.bytes[self.sections.strings.clone()].get(offset as usize..)?;
        (!text.is_empty()).then_some(text)
    }

    /// What a module's table is numbered from.
    fn end_of_ids(&self) -> u32 {
        self.first_id + self.places.len() as u32
    }

    fn end_of_strings(&self) -> u32 {
        self.first_string + self.sections.strings.len() as u32
    }

    fn at(&self, place: u32) -> Option<Type<'_>> {
        Type::parse(
            &self.bytes,
            place as usize,
            &self.bytes[self.sections.layout.clone()],
        )
    }
}

impl<'t> Type<'t> {
    /// The type that begins there; `None` where it is cut off or of unknown size.
    ///
    /// Kernels that know fewer kinds and elements leave the bits for more zero.
    fn parse(bytes: &'t [u8], at: usize, layout: &[u8]) -> Option<Self> {
        let (name, info) = (word(bytes, at)?, word(bytes, at + 4)?);
        let (number, elements) = (info >> 24 & 0x7f, (info & 0xff_ffff) as usize);
        let kind = Kind::of(number);
        let (itself, element) = kind.rest().or_else(|| laid_out(layout, number))?;
        let begin = at + COMMON;
        let rest = begin..begin + itself + element * elements;
        Some(Self {
            kind,
            name,
            size_or_type: word(bytes, at + 8)?,
            flag: info >> 31 == 1,
            rest: bytes.get(rest)?,
        })
    }

    /// The members of a structure or union; nothing else has any.
    pub(super) fn members(&self) -> impl Iterator<Item = StructMember> {
        let rest = match self.kind {
            Kind::Struct | Kind::Union => self.rest,
            _ => &[],
        };
        let flag = self.flag;
        rest.chunks_exact(12).filter_map(move |member| {
            let offset = word(member, 8)?;
            Some(StructMember {
                name: word(member, 0)?,
                type_id: word(member, 4)?,
                // With the flag the upper bits are the width of a bit field.
                bit_offset: if flag { offset & 0xff_ffff } else { offset },
            })
        })
    }

    /// Id of the type of an array's elements, and their number; nothing else has any.
    pub(super) fn elements(&self) -> Option<(u32, u32)> {
        match self.kind {
            Kind::Array => Some((word(self.rest, 0)?, word(self.rest, 8)?)),
            _ => None,
        }
    }
}

impl Sections {
    fn find(bytes: &[u8]) -> anyhow::Result<Self> {
        ensure!(bytes.len() >= HEADER, "its header is cut off");
        let magic = u16::from_ne_bytes([bytes[0], bytes[1]]);
        ensure!(magic == MAGIC, "it is no BTF of this machine");
        ensure!(bytes[2] == VERSION, "it is of version {}", bytes[2]);
        let header = word(bytes, 4).map_or(0, |length| length as usize);
        ensure!(
            (HEADER..=bytes.len()).contains(&header),
            "its header is cut off"
        );
        // Offset and length, from the header's end on.
        let section = |at| {
            let begin = header.checked_add(word(bytes, at)? as usize)?;
            let end = begin.checked_add(word(bytes, at + 4)? as usize)?;
            (end <= bytes.len()).then_some(begin..end)
        };
        Ok(Self {
            types: section(8).context("its types are cut off")?,
            strings: section(16).context("its strings are cut off")?,
            layout: if header < HEADER_WITH_LAYOUT {
                0..0
            } else {
                section(24).context("its layout is cut off")?
            },
        })
    }
}

/// What a kind adds to what all types have, as `struct btf_layout` tells: bytes by itself and
/// for each element.
fn laid_out(layout: &[u8], kind: u32) -> Option<(usize, usize)> {
    let [itself, element, _, _] = layout.get(4 * kind as usize..)?.first_chunk()?;
    Some(((*itself).into(), (*element).into()))
}

/// Where each type begins.
fn places(bytes: &[u8], sections: &Sections) -> anyhow::Result<Vec<u32>> {
    let (types, layout) = (&sections.types, &bytes[sections.layout.clone()]);
    let within = &bytes[..types.end];
    let mut places = Vec::with_capacity(types.len() / USUAL);
    let mut at = types.start;
    while at < types.end {
        let found = Type::parse(within, at, layout);
        let found = found.with_context(|| {
            let number = places.len() + 1;
            format!("its type {number} is cut off or of an unknown kind")
        })?;
        places.push(at as u32);
        at += COMMON + found.rest.len();
    }
    Ok(places)
}

/// Bytes of a type, as a guess for how many there are.
const USUAL: usize = 20;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{super::blob::*, *};

    fn parse(blob: &Blob) -> anyhow::Result<Table> {
        Table::parse(Contents::Read(blob.bytes()), None)
    }

    /// A type of each kind that adds something, and a function after it.
    fn one_of_each() -> Blob {
        let mut blob = Blob::new();
        let int = blob.add(INT, "int", 4, 0, &[32]);
        blob.add(ARRAY, "", 0, 0, &[int, int, 8]);
        blob.add_struct(STRUCT, "pair", 8, &[("a", int, 0), ("b", int, 32)]);
        for (number, bytes) in [
            (6, 8),
            (7, 0),
            (9, 0),
            (11, 0),
            (14, 4),
            (15, 12),
            (16, 0),
            (17, 4),
            (18, 0),
            (19, 12),
        ] {
            blob.add(number, "", 0, 1, &vec![0; bytes / 4]);
        }
        blob.add(PROTOTYPE, "", int, 1, &[0, int]);
        blob.add(FUNCTION, "last", 14, 0, &[]);
        blob
    }

    #[test]
    fn all_kinds_are_gone_through() {
        let table = parse(&one_of_each()).expect("sane BTF");
        let (id, last) = table.types().last().expect("there are types");
        assert_eq!((id, last.kind), (15, Kind::Function));
        assert_eq!(table.types().count(), 15);
        assert!(table.text(last.name).unwrap().starts_with(b"last\0"));
        let pair = table.get(3).unwrap();
        let offsets: Vec<_> = pair.members().map(|member| member.bit_offset).collect();
        assert_eq!(offsets, [0, 32]);
        assert_eq!(table.get(2).unwrap().elements(), Some((1, 8)));
        assert!(table.get(0).is_none() && table.get(16).is_none());
    }

    #[test]
    fn a_module_goes_on_where_its_base_ends() {
        let base = one_of_each();
        let mut module = base.module();
        let function = module.add(FUNCTION, "own", 14, 0, &[]);
        let base = parse(&base).unwrap();
        let module = Table::parse(Contents::Read(module.bytes()), Some(&base)).expect("sane BTF");
        assert_eq!(function, 16);
        let own = module.get(function).unwrap();
        assert!(module.text(own.name).unwrap().starts_with(b"own\0"));
        assert!(base.get(function).is_none() && module.get(15).is_none());
        assert!(base.text(own.name).is_none() && module.text(1).is_none());
    }

    #[test]
    fn a_later_kind_is_passed_over_where_its_size_is_told() {
        let later = |layout: &[(u8, u8)]| {
            let mut blob = Blob::new();
            blob.add(20, "", 0, 2, &[0, 0, 0]);
            blob.add(FUNCTION, "after", 1, 0, &[]);
            blob.lay_out(layout);
            parse(&blob)
        };
        let mut layout = [(0, 0); 21];
        layout[20] = (4, 4);
        let table = later(&layout).expect("sane BTF");
        assert_eq!(table.get(1).unwrap().kind, Kind::Unknown);
        assert_eq!(table.get(2).unwrap().kind, Kind::Function);
        assert!(later(&[]).is_err(), "and not guessed where it is not");
        assert!(later(&layout[..20]).is_err());
    }

    #[test]
    fn a_width_of_bits_is_no_part_of_the_distance() {
        let mut blob = Blob::new();
        blob.add_struct(STRUCT | FLAG, "flags", 4, &[("three", 1, 3 << 24 | 5)]);
        let table = parse(&blob).unwrap();
        let flags = table.get(1).unwrap();
        assert_eq!(flags.members().next().unwrap().bit_offset, 5);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let whole = one_of_each().bytes();
        for length in 0..whole.len() {
            let cut = Table::parse(Contents::Read(whole[..length].to_vec()), None);
            assert!(cut.is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn garbage_is_no_panic() {
        let whole = one_of_each().bytes();
        for place in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = value;
                let Ok(table) = Table::parse(Contents::Read(damaged), None) else {
                    continue;
                };
                for (_, found) in table.types() {
                    let _ = (found.members().count(), found.elements());
                    let _ = table.text(found.name);
                }
            }
        }
    }
}
