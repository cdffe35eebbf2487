//! The `[secrets]` section: strategy, section 3, "políticas recomendadas".

use obyra_evidence::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the passwords of roles are kept, how they are made and rotated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Secrets")]
pub struct Policy {
    /// The store that holds the passwords.
    pub store: Store,
    /// With `store = "env"`: the variable that holds a role's password. `{ENV}` and `{ROLE}` are
    /// replaced by the environment's and the role's name in capitals.
    #[schemars(length(min = 1))]
    pub variable: String,
    /// With a secret manager: the secret's name. `{env}` and `{role}` are replaced.
    #[schemars(length(min = 1))]
    pub name: String,
    /// With a secret manager: its address, where it has one (Vault) or the region or project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How many characters a generated password has.
    #[schemars(range(min = 16, max = 128))]
    pub length: u16,
    /// How passwords are rotated.
    pub rotation: Rotation,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            store: Store::File,
            variable: "OBYRA_{ENV}_{ROLE}_PASSWORD".into(),
            name: "obyra/{env}/{role}".into(),
            address: None,
            length: 32,
            rotation: Rotation::default(),
        }
    }
}

impl Policy {
    /// The variable that holds a role's password: `OBYRA_DEV_OBYRA_APP_PASSWORD`.
    pub fn variable_for(&self, environment: &str, role: &str) -> String {
        let capitals = |name: &str| -> String {
            name.chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect()
        };
        self.variable.replace("{ENV}", &capitals(environment)).replace("{ROLE}", &capitals(role))
    }

    /// The name of a role's secret in a secret manager: `obyra/production/obyra_app`.
    pub fn name_for(&self, environment: &str, role: &str) -> String {
        self.name.replace("{env}", environment).replace("{role}", role)
    }
}

/// A place that holds passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// Files under `state_dir/secrets/<environment>/<role>`, readable by their owner only.
    File,
    /// Environment variables, as a CI job or a container has them.
    Env,
    /// AWS Secrets Manager.
    AwsSecretsManager,
    /// Google Secret Manager.
    GoogleSecretManager,
    /// HashiCorp Vault or OpenBao.
    Vault,
}

impl Store {
    /// Whether it is a secret manager that other machines reach too.
    pub fn is_remote(self) -> bool {
        matches!(self, Store::AwsSecretsManager | Store::GoogleSecretManager | Store::Vault)
    }

    /// Its name, as the file writes it.
    pub fn name(self) -> &'static str {
        match self {
            Store::File => "file",
            Store::Env => "env",
            Store::AwsSecretsManager => "aws-secrets-manager",
            Store::GoogleSecretManager => "google-secret-manager",
            Store::Vault => "vault",
        }
    }
}

/// Rotation of passwords.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// How old a password may become, for roles that do not say `rotate` themselves.
    pub every: HumanDuration,
    /// How long before it is due people are told.
    pub notify_before: HumanDuration,
    /// The channels of `[alerts.channels]` that are told.
    pub notify: Vec<String>,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation {
            every: HumanDuration::from_days(90),
            notify_before: HumanDuration::from_days(7),
            notify: Vec::new(),
        }
    }
}
