//! Where in whole hashes the wanted fields are. As a rule all hashes have the same order, so that it is known beforehand.

use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use feast_core::{CellPlace, Result};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::commands::{WantedPair, WantedPairs};
use super::reading::{Cells, ViewFields, ViewRead};
use super::reply::Reply;
use super::scanner::Malformed;

/// The place of a field that is in no hash.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Where in their hashes the wanted fields are, view by view. As a rule all hashes have the same order.
#[derive(Default)]
pub(super) struct Places {
    places: Vec<u32>,
    order: Option<Arc<Order>>,
    /// Whether some were elsewhere than was thought.
    moved: bool,
}

/// The fields of some views in the order in which they are in their hashes.
pub(super) struct Order {
    views: Vec<Weak<ViewFields>>,
    /// Where the fields are, view by view.
    places: Vec<u32>,
    wanted: WantedPairs,
    /// The position of each field in `wanted`.
    ranks: Vec<u32>,
}

impl Order {
    fn is_of(&self, views: &[ViewRead<'_>], places: &[u32]) -> bool {
        let is_same = |(known, view): (&Weak<ViewFields>, &ViewRead<'_>)| known.as_ptr() == Arc::as_ptr(&view.fields);
        self.places == places && self.views.len() == views.len() && self.views.iter().zip(views).all(is_same)
    }

    fn of(views: &[ViewRead<'_>], places: &[u32]) -> Self {
        let names = views.iter().flat_map(|view| {
            let features = view.fields.features.iter().map(<[u8; 4]>::as_slice);
            features.chain([view.fields.time.as_slice()])
        });
        let mut fields: Vec<(u32, &[u8], usize)> =
            names.zip(places).enumerate().map(|(field, (name, place))| (*place, name, field)).collect();
        fields.sort_by_key(|(place, ..)| *place);
        let mut ranks = vec![0; places.len()];
        for (rank, (.., field)) in (0..).zip(&fields) {
            ranks[*field] = rank;
        }
        Self {
            views: views.iter().map(|view| Arc::downgrade(&view.fields)).collect(),
            places: places.to_vec(),
            wanted: fields.iter().map(|(place, name, _)| WantedPair::new(*place, name)).collect(),
            ranks,
        }
    }
}

impl Places {
    pub(super) fn of(views: &[ViewRead<'_>]) -> Self {
        let places: Vec<u32> =
            views.iter().flat_map(|view| &view.fields.places).map(|place| place.load(Relaxed)).collect();
        let Some(first) = views.first() else { return Self::default() };
        let known = first.fields.order.load_full().filter(|order| order.is_of(views, &places));
        let order = known.unwrap_or_else(|| {
            let order = Arc::new(Order::of(views, &places));
            first.fields.order.store(Some(Arc::clone(&order)));
            order
        });
        Self { places, order: Some(order), moved: false }
    }

    /// The fields in the order in which a reply has them, as a rule.
    pub(super) fn wanted(&self) -> WantedPairs {
        self.order.as_ref().map_or_else(WantedPairs::default, |order| Arc::clone(&order.wanted))
    }

    /// Takes the places of the values that were kept of a hash, if all of them were, or the hash is empty.
    pub(super) fn take_kept(&self, reply: &Reply<'_>, cells: &mut Vec<CellPlace>) -> bool {
        let Some(order) = &self.order else { return false };
        let kept = reply.kept();
        if kept.len() != order.ranks.len() || !kept.iter().all(|place| place.is_some()) {
            return false;
        }
        cells.extend(order.ranks.iter().map(|rank| kept[*rank as usize]));
        true
    }

    /// Looks for the cells of the wanted fields, in their order.
    pub(super) fn find(
        &mut self,
        views: &[ViewRead<'_>],
        hash: &mut WholeHash<'_>,
        cells: &mut Cells,
    ) -> Result<(), Malformed> {
        if hash.width == 0 {
            cells.places.resize(cells.places.len() + self.places.len(), CellPlace::NONE);
            return Ok(());
        }
        let mut places = self.places.iter_mut();
        let mut find = |name: &[u8]| -> Result<(), Malformed> {
            let Some(place) = places.next() else { return Ok(()) };
            let cell = match hash.search(name, place, &mut self.moved)? {
                None => CellPlace::NONE,
                Some(value) => {
                    let cell = CellPlace::new(cells.others.len(), value.len()).ok_or(Malformed)?;
                    cells.others.extend_from_slice(value);
                    cell
                }
            };
            cells.places.push(cell);
            Ok(())
        };
        for view in views {
            view.fields.features.iter().try_for_each(|name| find(name))?;
            find(&view.fields.time)?;
        }
        Ok(())
    }

    /// Lets the next requests know.
    pub(super) fn remember(&self, views: &[ViewRead<'_>], width: usize) {
        let mut rest = self.places.as_slice();
        for fields in views.iter().map(|view| &view.fields) {
            let (places, others) = rest.split_at(fields.len());
            rest = others;
            if !self.moved && fields.distance.load(Relaxed) > 0 {
                continue;
            }
            fields.places.iter().zip(places).for_each(|(known, place)| known.store(*place, Relaxed));
            let distances = places.iter().map(|place| width.min((*place as usize).saturating_add(1)));
            fields.distance.store(distances.sum(), Relaxed);
        }
    }
}

/// The fields of one hash in their order.
#[derive(Default)]
pub(super) struct WholeHash<'r> {
    reply: Reply<'r>,
    width: usize,
    /// Where the field was that was found last.
    last: u32,
    /// Where all pairs begin.
    starts: Vec<u32>,
    /// The places of all fields, once one is not behind the one before.
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<'r> WholeHash<'r> {
    pub(super) fn begin(&mut self, reply: Reply<'r>, width: usize) {
        (self.reply, self.width) = (reply, width);
        self.starts.clear();
        self.by_name.clear();
    }

    fn name(&self, place: u32) -> Option<&'r [u8]> {
        self.reply.name_at(*self.starts.get(place as usize)?)
    }

    fn value(&self, place: u32, name: &[u8]) -> Option<&'r [u8]> {
        self.reply.value_at(*self.starts.get(place as usize)?, name)
    }

    /// The cell of a field, whose place is corrected.
    fn search(&mut self, name: &[u8], place: &mut u32, moved: &mut bool) -> Result<Option<&'r [u8]>, Malformed> {
        if self.starts.is_empty() {
            self.reply.clone().starts_of_pairs(self.width, &mut self.starts)?;
        }
        if let Some(cell) = self.value(*place, name) {
            self.last = *place;
            return Ok(Some(cell));
        }
        // The fields of a view were written together.
        let next = self.last + 1;
        let found = if self.name(next) == Some(name) { Some(next) } else { self.look_up(name) };
        let known = std::mem::replace(place, found.unwrap_or(NOWHERE));
        *moved |= known != *place;
        let Some(found) = found else { return Ok(None) };
        self.last = found;
        Ok(self.value(found, name))
    }

    fn look_up(&mut self, name: &[u8]) -> Option<u32> {
        let (reply, starts, hasher) = (&self.reply, &self.starts, &self.hasher);
        let name_of = |place: u32| reply.name_at(*starts.get(place as usize)?);
        if self.by_name.is_empty() {
            for place in 0..u32::try_from(starts.len()).ok()? {
                let rehash = |place: &u32| hasher.hash_one(name_of(*place));
                self.by_name.insert_unique(hasher.hash_one(name_of(place)), place, rehash);
            }
        }
        self.by_name.find(hasher.hash_one(Some(name)), |place| name_of(*place) == Some(name)).copied()
    }
}
