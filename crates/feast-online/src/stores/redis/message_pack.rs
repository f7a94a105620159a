//! Lists of texts in MessagePack, which scripts of Redis take apart in C.

/// Begins a list of so many texts.
pub(super) fn put_list(out: &mut Vec<u8>, n_texts: usize) {
    put_length(out, n_texts, (0x90, 16), None, [0xdc, 0xdd]);
}

/// Appends a text of a list.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_length(out, text.len(), (0xa0, 32), Some(0xd9), [0xda, 0xdb]);
    out.extend_from_slice(text);
}

/// A length below a limit is part of the first byte; others follow it in one, two or four bytes, the first one highest.
fn put_length(out: &mut Vec<u8>, length: usize, (short, limit): (u8, usize), one: Option<u8>, [two, four]: [u8; 2]) {
    match (length, one) {
        (short_length, _) if short_length < limit => out.push(short | short_length as u8),
        (0..=0xff, Some(one)) => out.extend([one, length as u8]),
        (0..=0xffff, _) => {
            out.push(two);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(four);
            // Redis takes no text of more than half a gigabyte.
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        let list = |n_texts| {
            let mut out = Vec::new();
            put_list(&mut out, n_texts);
            out
        };
        assert_eq!([list(0), list(15)], [[0x90], [0x9f]]);
        assert_eq!([list(16), list(2002)], [[0xdc, 0, 16], [0xdc, 7, 0xd2]]);
        assert_eq!(list(1 << 16), [0xdd, 0, 1, 0, 0]);
        for (length, head) in [
            (0, vec![0xa0]),
            (31, vec![0xbf]),
            (32, vec![0xd9, 32]),
            (255, vec![0xd9, 255]),
            (256, vec![0xda, 1, 0]),
            (65_535, vec![0xda, 255, 255]),
            (65_536, vec![0xdb, 0, 1, 0, 0]),
        ] {
            let (text, mut out) = (vec![7; length], Vec::new());
            put_text(&mut out, &text);
            assert_eq!(out, [head, text].concat());
        }
    }
}
