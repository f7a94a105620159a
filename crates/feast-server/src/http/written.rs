//! A text in which the same long pieces come again and again: written once, and sent from where they are.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Shorter pieces are copied: that is less work than to send one more.
const LEAST_SHARED: usize = 1 << 13;

/// What is written so far.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) text: Vec<u8>,
    /// At which length of the text pieces of it come again, and which.
    again: Vec<(usize, Range<usize>)>,
}

impl Written {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), again: Vec::new() }
    }

    /// Whether a piece of that length is not copied when it comes again.
    pub(super) fn shares(length: usize) -> bool {
        length >= LEAST_SHARED
    }

    /// Appends what is written there already.
    pub(super) fn repeat(&mut self, piece: Range<usize>) {
        if Self::shares(piece.len()) {
            self.again.push((self.text.len(), piece));
        } else {
            self.text.extend_from_within(piece);
        }
    }

    /// Takes away a comma at the end.
    pub(super) fn pop_comma(&mut self) {
        let text = &mut self.text;
        match self.again.last_mut().filter(|(at, _)| *at == text.len()) {
            Some((_, piece)) if text[piece.clone()].ends_with(b",") => piece.end -= 1,
            None if text.ends_with(b",") => text.truncate(text.len() - 1),
            _ => {}
        }
    }

    fn into_pieces(self) -> VecDeque<Bytes> {
        let text = Bytes::from(self.text);
        let mut pieces = VecDeque::with_capacity(2 * self.again.len() + 1);
        let mut sent = 0;
        for (at, piece) in self.again {
            pieces.push_back(text.slice(sent..at));
            pieces.push_back(text.slice(piece));
            sent = at;
        }
        pieces.push_back(text.slice(sent..));
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

impl From<Written> for Body {
    fn from(written: Written) -> Self {
        if written.again.is_empty() {
            return Self::from(written.text);
        }
        let pieces = written.into_pieces();
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self::new(Pieces { pieces, length })
    }
}

/// A body of pieces.
struct Pieces {
    pieces: VecDeque<Bytes>,
    /// How long they are together.
    length: u64,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.pieces.pop_front();
        self.length -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is copied and whatever is sent from where it is.
        #[test]
        fn a_body_is_what_was_written(
            steps in prop::collection::vec((0..3usize, 0..2 * LEAST_SHARED, any::<prop::sample::Index>()), 0..12),
        ) {
            let (mut written, mut plain) = (Written::default(), Vec::new());
            for (step, length, at) in steps {
                match step {
                    0 => {
                        let text = [&vec![b'0' + (length % 10) as u8; length][..], b","].concat();
                        written.text.extend_from_slice(&text);
                        plain.extend_from_slice(&text);
                    }
                    1 => {
                        let start = at.index(written.text.len() + 1);
                        let piece = start..written.text.len().min(start + length);
                        plain.extend_from_slice(&written.text[piece.clone()]);
                        written.repeat(piece);
                    }
                    _ => {
                        written.pop_comma();
                        if plain.ends_with(b",") {
                            plain.pop();
                        }
                    }
                }
            }
            let body = Body::from(written);
            prop_assert_eq!(body.size_hint().exact(), Some(plain.len() as u64));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent = runtime.block_on(body.collect()).unwrap().to_bytes();
            prop_assert!(sent == plain);
        }
    }
}
