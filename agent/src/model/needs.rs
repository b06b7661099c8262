//! What an ailment has to know of the kernel before it attaches.

/// What an ailment needs to be told of the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Modules whose presence matters.
    pub modules: &'static [&'static str],
    /// Functions to be probed.
    pub functions: &'static [Function],
    /// Members of structures to be read, see [`KernelFacts::members`].
    pub members: &'static [MemberPath],
    /// Sysctls, dots between the parts.
    pub sysctls: &'static [&'static str],
}

/// The kernel image or a module, in which functions and structures are looked for.
#[derive(Clone, Copy, Debug)]
pub struct KernelObject(pub &'static str);

impl KernelObject {
    /// A function in it.
    pub const fn function(self, name: &'static str) -> Function {
        Function {
            name,
            module: self.0,
        }
    }

    /// A member that its types know.
    pub const fn member(self, path: &'static str) -> MemberPath {
        MemberPath {
            path,
            module: self.0,
        }
    }
}

/// A kernel function and the module that holds it (or that it is built in from).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name of the symbol.
    pub name: &'static str,
    /// Module, as in `/sys/module`.
    pub module: &'static str,
}

/// A member, by a path such as `nf_conn.ct_net.net`: the structure's name, then
/// members. Anonymous structures are looked through, arrays stand for their
/// first element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberPath {
    /// The path.
    pub path: &'static str,
    /// Module whose types know the structure.
    pub module: &'static str,
}

impl MemberPath {
    /// The name that the path begins with.
    pub fn structure(&self) -> &'static str {
        self.path.split('.').next().unwrap_or(self.path)
    }
}
