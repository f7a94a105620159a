//! Where replies of the Redis protocol end, in bytes that arrive piece by piece.

use feast_core::CellPlace;

use super::commands::WantedPair;
use super::guesses::Guesses;

/// The server sent what is not its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Why no more replies can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    Malformed,
    /// A reply has more elements than it may have.
    TooLong,
}

impl From<Malformed> for Unusable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Kind, number or nothing, text, and where the next element starts.
pub(super) type Header<'a> = (u8, i64, &'a [u8], usize);

/// What the element at a position begins with. `None`: its line has not arrived.
#[inline]
pub(super) fn header(bytes: &[u8], at: usize) -> Result<Option<Header<'_>>, Malformed> {
    // Nearly all numbers are the lengths of names and values, with one digit.
    let line = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    if let Some([kind @ (b'$' | b'*' | b':'), digit @ b'0'..=b'9', b'\r', b'\n']) = line {
        return Ok(Some((*kind, i64::from(digit - b'0'), &[], at + 4)));
    }
    let Some(kind) = bytes.get(at).copied() else { return Ok(None) };
    if matches!(kind, b'+' | b'-') {
        let Some(length) = bytes[at + 1..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        return Ok(Some((kind, 0, &bytes[at + 1..at + 1 + length], at + length + 3)));
    }
    if !matches!(kind, b'$' | b'*' | b':') {
        return Err(Malformed);
    }
    let mut position = at + 1;
    let negative = bytes.get(position) == Some(&b'-');
    position += usize::from(negative);
    let mut number: i64 = 0;
    loop {
        match bytes.get(position) {
            None => return Ok(None),
            Some(digit @ b'0'..=b'9') => {
                let digit = i64::from(digit - b'0');
                number = number.checked_mul(10).and_then(|number| number.checked_add(digit)).ok_or(Malformed)?;
            }
            Some(b'\r') => match bytes.get(position + 1) {
                None => return Ok(None),
                Some(b'\n') => break,
                Some(_) => return Err(Malformed),
            },
            Some(_) => return Err(Malformed),
        }
        position += 1;
    }
    Ok(Some((kind, if negative { -number } else { number }, &[], position + 2)))
}

/// Where the text of a length starts and ends, and the next element starts.
pub(super) fn text_end(start: usize, length: i64) -> Result<(usize, usize), Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let end = start.checked_add(length).ok_or(Malformed)?;
    Ok((end, end.checked_add(2).ok_or(Malformed)?))
}

/// Where a text of less than 100 bytes starts, and how long it is.
#[inline(always)]
pub(super) fn short_text(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let head = bytes.get(at..)?.first_chunk::<5>()?;
    // The names of features. A processor guesses this and goes on, where it waits for a length that it has to compute.
    if head[..4] == *b"$4\r\n" {
        return Some((at + 4, 4));
    }
    match head {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', _] => Some((at + 4, usize::from(ones - b'0'))),
        [b'$', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n'] => {
            Some((at + 5, usize::from(10 * (tens - b'0') + (ones - b'0'))))
        }
        _ => None,
    }
}

/// Appends a short text. It is copied with what is behind it, as many bytes at once as are copied fastest.
#[inline(always)]
fn put_short(out: &mut Vec<u8>, bytes: &[u8], start: usize, length: usize) {
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<16>()) {
        Some(more) if length <= more.len() => {
            let end = out.len() + length;
            out.extend_from_slice(more);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&bytes[start..start + length]),
    }
}

/// What is found where a text should be.
pub(super) enum Found<'a> {
    /// The text, and where the next element starts.
    Text(&'a [u8], usize),
    /// Not all of it has arrived.
    Later,
    Other,
}

#[inline(always)]
pub(super) fn find_text(bytes: &[u8], at: usize) -> Result<Found<'_>, Malformed> {
    let (start, end, next) = match short_text(bytes, at) {
        Some((start, length)) => (start, start + length, start + length + 2),
        None => match header(bytes, at)? {
            None => return Ok(Found::Later),
            Some((b'$', length @ 0.., _, start)) => {
                let (end, next) = text_end(start, length)?;
                (start, end, next)
            }
            Some(_) => return Ok(Found::Other),
        },
    };
    Ok(if next <= bytes.len() { Found::Text(&bytes[start..end], next) } else { Found::Later })
}

/// Nearly all names have four bytes, which are compared at once.
#[inline(always)]
pub(super) fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 4]>::try_from(a), <&[u8; 4]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// What was kept of replies that are lists of pairs.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// The values, one after the other.
    pub(super) bytes: Vec<u8>,
    /// Where they are: for each reply one per wanted pair, none where another pair is in its place.
    pub(super) places: Vec<CellPlace>,
    /// How many places there are with each reply and the ones before.
    pub(super) ends: Vec<usize>,
    /// How many wanted pairs were not where they should be, in lists that have any pairs.
    pub(super) lacking: usize,
}

/// How pairs end.
enum Pairs {
    WithTheList,
    /// The next one has not arrived.
    Later,
    /// With something that is no pair of texts.
    Other,
}

/// Finds the ends of replies in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    /// Elements that the reply at hand still lacks.
    open: u64,
    /// Elements of the reply at hand, which is a list.
    length: u64,
    /// How many wanted pairs of the reply at hand were kept, or are not where they should be.
    kept: usize,
    guesses: Guesses,
}

impl Scanner {
    /// The end of the next reply of at most so many elements, once all of it is in `bytes`, which may only have grown
    /// since the last call.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        most_elements: usize,
        mut keeping: Option<(&[WantedPair], &mut Keeping)>,
    ) -> Result<Option<usize>, Unusable> {
        loop {
            // Nearly all elements are short texts in an array.
            while self.open > 0 {
                if let Some((wanted, kept)) = &mut keeping
                    && self.open.is_multiple_of(2)
                {
                    match self.keep_pairs(bytes, wanted, kept)? {
                        Pairs::WithTheList => break,
                        Pairs::Later => return Ok(None),
                        Pairs::Other => {}
                    }
                }
                let Some((start, length)) = short_text(bytes, self.at) else { break };
                let end = start + length + 2;
                if end > bytes.len() {
                    return Ok(None);
                }
                self.at = end;
                self.open -= 1;
            }
            if self.open == 0 && self.length > 0 {
                return Ok(Some(self.end(keeping)));
            }
            let Some((kind, number, _, mut end)) = header(bytes, self.at)? else { return Ok(None) };
            match kind {
                b'$' if number >= 0 => {
                    end = text_end(end, number)?.1;
                    if end > bytes.len() {
                        return Ok(None);
                    }
                }
                b'*' if number as usize > most_elements && number > 0 => return Err(Unusable::TooLong),
                b'*' if number > 0 && self.open == 0 => {
                    (self.open, self.length) = (number as u64, number as u64);
                    self.at = end;
                    continue;
                }
                b'*' if number > 0 => self.open = self.open.checked_add(number as u64).ok_or(Malformed)?,
                _ => {}
            }
            self.at = end;
            self.open = self.open.saturating_sub(1);
            if self.open == 0 {
                return Ok(Some(self.end(keeping)));
            }
        }
    }

    /// Passes over pairs and keeps the values of the wanted ones, while their bytes are at hand.
    #[inline]
    fn keep_pairs(&mut self, bytes: &[u8], wanted: &[WantedPair], kept: &mut Keeping) -> Result<Pairs, Malformed> {
        let guesses = self.guesses.of(self.length / 2);
        let (mut at, mut open, mut n_kept) = (self.at, self.open, self.kept);
        let ended = loop {
            if open == 0 {
                break Pairs::WithTheList;
            }
            let place = self.length.saturating_sub(open) / 2;
            let wanted_next = wanted.get(n_kept..).unwrap_or_default();
            let until_wanted = wanted_next.first().map_or(u64::MAX, |next| u64::from(next.place).saturating_sub(place));
            let passing = until_wanted.min(open / 2) as usize;
            let here = usize::try_from(place).ok().and_then(|place| guesses.get_mut(place..)).unwrap_or_default();
            let mut passed = 0;
            for guess in here.iter_mut().take(passing) {
                let Some(pair) = guess.pair(bytes, at) else { break };
                at = pair.end;
                passed += 1;
            }
            let place = place + passed as u64;
            open -= 2 * passed as u64;
            let mut taken = 0;
            if passed == passing {
                let here = here.get_mut(passing..).unwrap_or_default().iter_mut().take((open / 2) as usize);
                for (guess, wanted) in here.zip(wanted_next) {
                    if u64::from(wanted.place) != place + taken as u64 {
                        break;
                    }
                    let Some(pair) = guess.pair(bytes, at) else { break };
                    let name = bytes.get(at + 4..).and_then(|rest| rest.first_chunk::<4>());
                    if name != wanted.short_name.as_ref() {
                        break;
                    }
                    kept.places.push(CellPlace::new(kept.bytes.len(), pair.length).ok_or(Malformed)?);
                    put_short(&mut kept.bytes, bytes, pair.start, pair.length);
                    at = pair.end;
                    taken += 1;
                }
            }
            n_kept += taken;
            open -= 2 * taken as u64;
            if open == 0 || taken > 0 {
                continue;
            }
            // Whatever was not guessed.
            let (name, value, end) = match find_text(bytes, at)? {
                Found::Text(name, next) => match find_text(bytes, next)? {
                    Found::Text(value, end) => (name, value, end),
                    Found::Later => break Pairs::Later,
                    Found::Other => break Pairs::Other,
                },
                Found::Later => break Pairs::Later,
                Found::Other => break Pairs::Other,
            };
            while let Some(next) = wanted.get(n_kept).filter(|wanted| u64::from(wanted.place) <= place) {
                let is_it = u64::from(next.place) == place && is_same(&next.name, name);
                let kept_at = if is_it { CellPlace::new(kept.bytes.len(), value.len()) } else { None };
                match kept_at {
                    Some(_) => kept.bytes.extend_from_slice(value),
                    None => kept.lacking += 1,
                }
                kept.places.push(kept_at.unwrap_or(CellPlace::NONE));
                n_kept += 1;
            }
            at = end;
            open -= 2;
        };
        (self.at, self.open, self.kept) = (at, open, n_kept);
        Ok(ended)
    }

    /// The reply at hand ends here.
    fn end(&mut self, keeping: Option<(&[WantedPair], &mut Keeping)>) -> usize {
        if let Some((wanted, kept)) = keeping {
            let lacking = wanted.len() - self.kept;
            kept.places.extend(std::iter::repeat_n(CellPlace::NONE, lacking));
            kept.lacking += if self.length > 0 { lacking } else { 0 };
            kept.ends.push(kept.places.len());
        }
        (self.open, self.length, self.kept) = (0, 0, 0);
        self.at
    }

    /// So many bytes were taken away in front.
    pub(super) fn taken(&mut self, length: usize) {
        self.at = self.at.saturating_sub(length);
    }
}
