//! Memory of a server: pages of the program that only its start needed, and what the allocator keeps.
//!
//! A start runs through code all over a program of some hundred megabytes, and reads a relocation for every pointer in
//! its tables; for each place the kernel maps the pages around it too. A server keeps all of that resident for as long
//! as it runs and needs a small part of it. The pages are those of a file that nobody changes: what is let go stays in
//! the system's cache, and comes back from there when it is needed after all.

#![expect(unsafe_code, reason = "the kernel and the allocator are asked about memory")]

use std::time::Duration;

/// Lets go of the code and the constants of this program, or of the library that it is in.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(crate) fn let_go_of_start() {
    // SAFETY: the callback keeps to what is promised of its arguments.
    unsafe { libc::dl_iterate_phdr(Some(visit), std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(crate) fn let_go_of_start() {}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the caller gives a description that is whole for as long as the call takes.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)))
    };
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let ends = |header: &libc::Elf64_Phdr| {
        let start = base + header.p_vaddr as usize;
        (start, start + header.p_memsz as usize)
    };
    let here = let_go_of_start as *const () as usize;
    if !loaded().map(ends).any(|(start, end)| (start..end).contains(&here)) {
        return 0;
    }
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    // What was ever written to is not in the file.
    for (start, end) in loaded().filter(|header| header.p_flags & libc::PF_W == 0).map(ends) {
        let (start, end) = (start.next_multiple_of(page), end / page * page);
        if start < end {
            // SAFETY: these pages were never written to, so that they are the same when they are read anew. Who does not
            // get what it advises keeps what there is.
            let _advised = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    1
}

/// Answers have some hundred kilobytes. The allocator gives such memory back to the system whenever there is enough of it
/// at one end, and each page that comes back is filled with zeros: a tenth of the time that an answer takes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 1 << 26;

/// Larger pieces are the system's again once they are free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 1 << 25;

/// Lets the allocator keep what is free for what comes next.
pub(crate) fn keep_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets two numbers of the allocator, which guards them.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// How often it is seen whether nothing goes on.
const GLANCE: Duration = Duration::from_secs(5);

/// Processor time that is next to nothing for so long.
const NEXT_TO_NOTHING: Duration = Duration::from_millis(50);

/// Gives back what is free whenever nothing goes on any more.
pub(crate) async fn give_back_when_idle() {
    let (mut before, mut was_busy) = (processor_time(), true);
    loop {
        tokio::time::sleep(GLANCE).await;
        let now = processor_time();
        let is_busy = now.saturating_sub(before) > NEXT_TO_NOTHING;
        if was_busy && !is_busy {
            give_back();
        }
        (before, was_busy) = (now, is_busy);
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: asks the allocator for what only it knows.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn processor_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills in the value that it is given.
        let known = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        if known == 0 {
            let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
            return Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default());
        }
    }
    Duration::ZERO
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// KiB of pages of this process that are resident, of files or others.
    fn resident(kind: &str) -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn free_memory_is_kept_and_given_back() {
        keep_free_memory();
        let before = resident("RssAnon:");
        // Something that lives keeps the allocator from giving back all of it by itself.
        let (pieces, _last) = ((0..64).map(|_| vec![1u8; 1 << 18]).collect::<Vec<_>>(), Box::new([1u8; 64]));
        drop(pieces);
        let kept = resident("RssAnon:");
        assert!(kept > before + 8_000, "{kept} KiB after {before}");
        give_back();
        let after = resident("RssAnon:");
        assert!(after < before + 8_000, "{after} KiB after {before} and {kept}");
    }

    #[test]
    fn time_goes_by() {
        let before = processor_time();
        while processor_time() == before {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn what_is_let_go_comes_back() {
        let constants: Vec<&str> = feast_core::ValueType::ALL.iter().map(|value_type| value_type.name()).collect();
        let before = (constants.concat(), resident("RssFile:"));
        let_go_of_start();
        let after = resident("RssFile:");
        assert!(after < before.1, "{after} of {} KiB", before.1);
        assert_eq!(constants.concat(), before.0);
        let parsed = constants.iter().map(|name| name.parse::<feast_core::ValueType>().unwrap());
        assert_eq!(parsed.collect::<Vec<_>>(), feast_core::ValueType::ALL);
    }
}
