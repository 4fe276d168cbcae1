//! The changes that somebody asks for, one method each: a `Change` through the control thread, and what comes of it. There is
//! no way to one without saying who it is.

use std::collections::BTreeSet;

use dataflows::types::{
    ApiKey, Business, Definition, KeyKind, Plan, PlanLimit, Sealed, SeriesId, SeriesKey, SeriesSpec,
    SliceMove, StripeEvent, StripeKey, Webhook,
};

use super::{
    BUSINESS_PREFIX, CUSTOMER_PREFIX, Change, Control, ControlError, Created, CustomerRecord, CutRequest,
    Made, Origin, ReportChange, SeriesHandle, StripeChange, hash_key, new_key,
};

/// The changes, as somebody makes them.
pub struct Edits<'a> {
    pub(super) control: &'a Control,
    origin: Origin,
}

impl Control {
    /// The changes, as made by this one.
    pub fn by(&self, origin: Origin) -> Edits<'_> {
        Edits { control: self, origin }
    }
}

impl Edits<'_> {
    pub(super) async fn request(&self, change: Change) -> Result<Made, ControlError> {
        self.control.request(change, self.origin.clone()).await
    }

    /// An event of Stripe: as it was read, and what it did; false if it had been read before.
    pub async fn stripe(&self, change: StripeChange) -> Result<(Option<StripeEvent>, bool), ControlError> {
        let (business_id, event_id) = (change.event.business_id.clone(), change.event.event_id.clone());
        let made = self.request(Change::Stripe(change)).await?;
        let event = self.control.registry().stripe_events().get(&business_id, &event_id).cloned();
        Ok((event, made.definitions > 0))
    }

    /// Definitions that the service itself makes at a start.
    pub async fn define(&self, definitions: Vec<Definition>) -> Result<(), ControlError> {
        self.request(Change::Define(definitions)).await.map(drop)
    }

    /// Cuts slices of usage; how many definitions that took.
    pub async fn cut_slices(&self, request: CutRequest) -> Result<usize, ControlError> {
        Ok(self.request(Change::CutSlices(request)).await?.definitions)
    }

    /// Says what has become of slices.
    pub async fn move_slices(&self, moves: Vec<SliceMove>) -> Result<(), ControlError> {
        self.request(Change::MoveSlices(moves)).await.map(drop)
    }

    /// Says what has become of a report that is awaited.
    pub async fn settle_report(&self, change: ReportChange) -> Result<(), ControlError> {
        self.request(Change::SettleReport(change)).await.map(drop)
    }

    /// Creates a series, or finds it.
    pub async fn create_series(&self, key: SeriesKey, spec: SeriesSpec) -> Result<Created, ControlError> {
        let made = self.request(Change::CreateSeries { key: key.clone(), spec }).await?;
        let handle = self.control.resolve(&key).ok_or(ControlError::NoSuchSeries)?;
        Ok(Created { handle, existed: made.definitions == 0 })
    }

    /// Describes a series anew. Whether it has updates, so that what decides how they count is fixed, only the engine
    /// knows: the caller asks.
    pub async fn change_series(
        &self,
        key: &SeriesKey,
        spec: SeriesSpec,
    ) -> Result<SeriesHandle, ControlError> {
        self.request(Change::DescribeSeries { key: key.clone(), spec }).await?;
        self.control.resolve(key).ok_or(ControlError::NoSuchSeries)
    }

    /// Deletes a series.
    pub async fn delete_series(&self, key: &SeriesKey) -> Result<(), ControlError> {
        self.request(Change::DeleteSeries { key: key.clone() }).await.map(drop)
    }

    /// Starts a new live period of every series that a customer is billed by; how many there are.
    pub async fn reset_billing(&self, business_id: &str, customer_id: &str) -> Result<usize, ControlError> {
        let (business_id, customer_id) = (business_id.to_owned(), customer_id.to_owned());
        Ok(self.request(Change::ResetBilling { business_id, customer_id }).await?.definitions)
    }

    /// Remembers that a POST with this body has been recorded as an update of the series.
    pub async fn record_post(&self, series: SeriesId, body_hash: u128) -> Result<(), ControlError> {
        self.request(Change::RecordPost { series, body_hash }).await.map(drop)
    }

    /// Defines a customer, or defines it anew.
    pub async fn put_customer(&self, record: CustomerRecord, must_be_new: bool) -> Result<(), ControlError> {
        self.request(Change::PutCustomer { record, must_be_new }).await.map(drop)
    }

    /// Deletes a customer with its keys and series.
    pub async fn delete_customer(&self, business_id: &str, customer_id: &str) -> Result<(), ControlError> {
        let (business_id, customer_id) = (business_id.to_owned(), customer_id.to_owned());
        self.request(Change::DeleteCustomer { business_id, customer_id }).await.map(drop)
    }

    /// Defines a business, or defines it anew.
    pub async fn put_business(&self, business: Business) -> Result<(), ControlError> {
        self.request(Change::PutBusiness(business)).await.map(drop)
    }

    /// Deletes a business with its keys, customers and series.
    pub async fn delete_business(&self, business_id: &str) -> Result<(), ControlError> {
        self.request(Change::DeleteBusiness { business_id: business_id.to_owned() }).await.map(drop)
    }

    /// Makes a key: `described` but for its hash. Returns the key, which is nowhere else.
    pub async fn create_key(&self, described: ApiKey) -> Result<String, ControlError> {
        let prefix = match described.kind {
            KeyKind::Business => BUSINESS_PREFIX,
            KeyKind::Customer { .. } => CUSTOMER_PREFIX,
        };
        let key = new_key(prefix).map_err(|_| ControlError::NoRandomness)?;
        self.request(Change::CreateKey(ApiKey { hash: hash_key(&key), ..described })).await?;
        Ok(key)
    }

    /// Deletes a key. It works no more when this returns.
    pub async fn delete_key(
        &self,
        business_id: &str,
        kind: KeyKind,
        key_name: &str,
    ) -> Result<(), ControlError> {
        let (business_id, key_name) = (business_id.to_owned(), key_name.to_owned());
        self.request(Change::DeleteKey { business_id, kind, key_name }).await.map(drop)
    }

    /// Makes credentials for Stripe.
    pub async fn create_stripe_key(&self, key: StripeKey) -> Result<(), ControlError> {
        self.request(Change::CreateStripeKey(key)).await.map(drop)
    }

    /// Deletes credentials for Stripe.
    pub async fn delete_stripe_key(&self, business_id: &str, key_name: &str) -> Result<(), ControlError> {
        let (business_id, key_name) = (business_id.to_owned(), key_name.to_owned());
        self.request(Change::DeleteStripeKey { business_id, key_name }).await.map(drop)
    }

    /// Says where a business's messages go, and what they are signed with from now on.
    pub async fn put_webhook(
        &self,
        business_id: &str,
        url: String,
        secret: Sealed,
    ) -> Result<Webhook, ControlError> {
        let change = Change::PutWebhook { business_id: business_id.to_owned(), url, secret };
        self.request(change).await?;
        self.control.webhook(business_id).ok_or(ControlError::NoSuchBusiness)
    }

    /// Says what a business's customer keys may reach by the proxy: origins in normal form, none for no bounds.
    pub async fn put_proxy_targets(
        &self,
        business_id: &str,
        origins: BTreeSet<String>,
    ) -> Result<(), ControlError> {
        let business_id = business_id.to_owned();
        self.request(Change::PutProxyTargets { business_id, origins }).await.map(drop)
    }

    /// Defines a plan.
    pub async fn create_plan(&self, plan: Plan) -> Result<(), ControlError> {
        self.request(Change::PutPlan(plan)).await.map(drop)
    }

    /// Deletes a plan that nobody is on, with its limits.
    pub async fn delete_plan(&self, business_id: &str, plan_id: &str) -> Result<(), ControlError> {
        let (business_id, plan_id) = (business_id.to_owned(), plan_id.to_owned());
        self.request(Change::DeletePlan { business_id, plan_id }).await.map(drop)
    }

    /// Defines a limit of a plan, or a default, or defines it anew.
    pub async fn put_plan_limit(&self, limit: PlanLimit, must_exist: bool) -> Result<Made, ControlError> {
        self.request(Change::PutPlanLimit { limit, must_exist }).await
    }

    /// Deletes a limit.
    pub async fn delete_plan_limit(&self, business_id: &str, limit_id: &str) -> Result<Made, ControlError> {
        let (business_id, limit_id) = (business_id.to_owned(), limit_id.to_owned());
        self.request(Change::DeletePlanLimit { business_id, limit_id }).await
    }
}
