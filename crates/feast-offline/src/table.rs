//! Large tables that are read and written in no order.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use memmap2::MmapMut;

/// Numbers in memory that begins as zeros; pages of large tables count from when they are written on.
///
/// Going through a large table in no order waits for the translation of addresses more than for memory, so that it lies
/// on huge pages where the system has them, and goes back to the system as soon as it is dropped.
pub(crate) struct Table<T> {
    memory: Memory,
    len: usize,
    of: PhantomData<T>,
}

enum Memory {
    /// Words, so that every type is aligned.
    Heap(Vec<u64>),
    Mapped(MmapMut),
}

/// Tables of fewer bytes have too little of a huge page.
const LEAST_MAPPED: usize = if cfg!(test) { 256 } else { 4 << 20 };

impl<T: Pod> Table<T> {
    /// So many zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let size = len * size_of::<T>();
        let mapped = if size < LEAST_MAPPED { None } else { MmapMut::map_anon(size).ok() };
        let memory = match mapped {
            Some(mapped) => {
                // Without them it takes longer and is as right.
                #[cfg(target_os = "linux")]
                let _ = mapped.advise(memmap2::Advice::HugePage);
                Memory::Mapped(mapped)
            }
            None => Memory::Heap(vec![0; size.div_ceil(size_of::<u64>())]),
        };
        Self { memory, len, of: PhantomData }
    }

    /// The same number so many times.
    pub(crate) fn filled(len: usize, with: T) -> Self {
        let mut table = Self::zeroed(len);
        table.fill(with);
        table
    }

    /// The same bytes as numbers of another type.
    pub(crate) fn cast<U: Pod>(self) -> Table<U> {
        Table { len: self.len * size_of::<T>() / size_of::<U>(), memory: self.memory, of: PhantomData }
    }
}

impl<T: Pod> Deref for Table<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        let bytes: &[u8] = match &self.memory {
            Memory::Heap(words) => bytemuck::cast_slice(words),
            Memory::Mapped(mapped) => mapped,
        };
        bytemuck::cast_slice(&bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Pod> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes: &mut [u8] = match &mut self.memory {
            Memory::Heap(words) => bytemuck::cast_slice_mut(words),
            Memory::Mapped(mapped) => mapped,
        };
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_tables_are_alike() {
        for len in [0, 3, 100] {
            let mut table = Table::<u32>::zeroed(len);
            assert_eq!(*table, vec![0; len]);
            table.iter_mut().zip(0..).for_each(|(number, at)| *number = at);
            assert!(table.iter().copied().eq(0..len as u32));
            assert_eq!(*Table::filled(len, -1i64), vec![-1; len]);
            assert_eq!(*Table::filled(len, -1i64).cast::<u32>(), vec![u32::MAX; 2 * len]);
        }
    }
}
