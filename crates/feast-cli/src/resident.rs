//! Pages of the program that only its start needed.
//!
//! A start runs through code all over a program of some hundred megabytes, and reads a relocation for every pointer in
//! its tables; for each place the kernel maps the pages around it too. A server keeps all of that resident for as long
//! as it runs and needs a small part of it. The pages are those of a file that nobody changes: what is let go stays in
//! the system's cache, and comes back from there when it is needed after all.

#![expect(unsafe_code, reason = "the kernel is asked about memory")]

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

#[cfg(all(test, target_os = "linux", target_pointer_width = "64"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// KiB of file pages of this process that are resident.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    #[test]
    fn what_is_let_go_comes_back() {
        let constants: Vec<&str> = feast_core::ValueType::ALL.iter().map(|value_type| value_type.name()).collect();
        let before = (constants.concat(), resident());
        let_go_of_start();
        let after = resident();
        assert!(after < before.1, "{after} of {} KiB", before.1);
        assert_eq!(constants.concat(), before.0);
        let parsed = constants.iter().map(|name| name.parse::<feast_core::ValueType>().unwrap());
        assert_eq!(parsed.collect::<Vec<_>>(), feast_core::ValueType::ALL);
    }
}
