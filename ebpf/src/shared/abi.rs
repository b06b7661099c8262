//! What the declarations of the ABI have in common.

/// An offset that the running kernel does not tell, or that the agent has not set yet.
pub const UNKNOWN: u32 = u32::MAX;

/// Marks plain structures of the ABI as ones that the agent may read out of a map or
/// write into a global: no padding, no pointer, any bit pattern valid.
macro_rules! abi {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)`, built of integers only, without padding.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $type {}
        )+
    };
}

/// Gives structures of offsets their initial value. They are `repr(C)` and built of `u32`
/// only, possibly nested.
macro_rules! offsets {
    ($($type:ty),+ $(,)?) => {
        $(
            impl $type {
                /// No offset is known.
                pub const UNKNOWN: Self = {
                    const COUNT: usize = size_of::<$type>() / size_of::<u32>();
                    // SAFETY: a structure of nothing but `COUNT` numbers of 32 bits. The
                    // compiler refuses another size.
                    unsafe {
                        core::mem::transmute::<[u32; COUNT], $type>(
                            [$crate::shared::UNKNOWN; COUNT],
                        )
                    }
                };
            }
        )+
    };
}

/// Declares an enumeration whose variants are counted apart: the number of a variant, from
/// 0 on in the order of the declaration, is the index of its counter, and the text is the
/// value of its metric's label.
macro_rules! label_values {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $value:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// All, in the order of their numbers.
            pub const ALL: [Self; [$($name::$variant),+].len()] = [$(Self::$variant),+];

            /// The value of the metric's label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
        }
    };
}

/// Lets the programs count lost events in the field `lost` of a structure of totals, an
/// array of counters by reason.
macro_rules! losses {
    ($totals:ty, $loss:ty) => {
        #[cfg(target_arch = "bpf")]
        impl $crate::shared::Losses for $totals {
            type Loss = $loss;

            #[inline(always)]
            unsafe fn counter(totals: *mut Self, loss: $loss) -> *mut u64 {
                // SAFETY: the caller's promise.
                unsafe { &raw mut (*totals).lost[loss as usize] }
            }
        }
    };
}

pub(crate) use {abi, label_values, losses, offsets};
