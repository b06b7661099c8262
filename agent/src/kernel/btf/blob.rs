//! For tests: BTF made by hand.

/// Types and strings in the making.
#[derive(Clone, Default)]
pub(super) struct Blob {
    types: Vec<u32>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    /// What the base has, for a module's.
    base: (u32, u32),
    count: u32,
}

/// `BTF_KIND_*` of include/uapi/linux/btf.h.
pub(super) const INT: u32 = 1;
pub(super) const POINTER: u32 = 2;
pub(super) const ARRAY: u32 = 3;
pub(super) const STRUCT: u32 = 4;
pub(super) const UNION: u32 = 5;
pub(super) const TYPEDEF: u32 = 8;
pub(super) const CONST: u32 = 10;
pub(super) const FUNCTION: u32 = 12;
pub(super) const PROTOTYPE: u32 = 13;
pub(super) const FLAG: u32 = 1 << 31;

impl Blob {
    pub(super) fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    /// One on top of this.
    pub(super) fn module(&self) -> Self {
        Self {
            base: (
                self.base.0 + self.count,
                self.base.1 + self.strings.len() as u32,
            ),
            ..Self::default()
        }
    }

    /// Adds a type, and returns its id. The elements are those that the kind counts.
    pub(super) fn add(
        &mut self,
        kind: u32,
        name: &str,
        size_or_type: u32,
        elements: u32,
        rest: &[u32],
    ) -> u32 {
        let name = self.string(name);
        let (flag, kind) = (kind & FLAG, kind & !FLAG);
        let info = flag | kind << 24 | elements;
        self.types.extend([name, info, size_or_type]);
        self.types.extend(rest);
        self.count += 1;
        self.base.0 + self.count
    }

    /// Adds a structure or union of members: name, type, distance in bits.
    pub(super) fn add_struct(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32)],
    ) -> u32 {
        let words = members.iter();
        let words: Vec<_> = words
            .flat_map(|(name, id, bits)| [self.string(name), *id, *bits])
            .collect();
        self.add(kind, name, size, members.len() as u32, &words)
    }

    /// Says how large kinds are: bytes by themselves and for each element.
    pub(super) fn lay_out(&mut self, kinds: &[(u8, u8)]) {
        self.layout = kinds
            .iter()
            .flat_map(|(itself, element)| [*itself, *element, 0, 0])
            .collect();
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.base.1 + self.strings.len() as u32;
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let types: Vec<_> = self.types.iter().flat_map(|it| it.to_ne_bytes()).collect();
        let (types_len, strings_len) = (types.len() as u32, self.strings.len() as u32);
        let layout_len = self.layout.len() as u32;
        let header_len = if layout_len == 0 { 24 } else { 32 };
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let header = [
            header_len,
            0,
            types_len,
            types_len,
            strings_len,
            types_len + strings_len,
            layout_len,
        ];
        let fields = (header_len as usize - 4) / 4;
        bytes.extend(
            header[..fields]
                .iter()
                .flat_map(|it: &u32| it.to_ne_bytes()),
        );
        bytes.extend(types);
        bytes.extend(&self.strings);
        bytes.extend(&self.layout);
        bytes
    }
}
