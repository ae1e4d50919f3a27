package finding

// ConfigurationUnusable is of the service's own settings.
const ConfigurationUnusable ID = "configuration-unusable"
